{{- define "proxy.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "proxy.selector" -}}
app.kubernetes.io/name: mcp-session-proxy
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "proxy.labels" -}}
{{ include "proxy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "proxy.count" -}}
{{ ternary .Values.replicas .Values.replicaCount (hasKey .Values "replicas") }}
{{- end }}

{{- /* Whether the pods have a store in common, and what it is called. */}}
{{- define "proxy.stored" -}}
{{- if or .Values.store.url .Values.store.secret .Values.valkey.enabled }}yes{{ end }}
{{- end }}

{{- define "proxy.valkey" -}}
{{ include "proxy.name" . }}-valkey
{{- end }}

{{- /* The options as a TOML file. JSON's strings, lists and truths are TOML's, too; its numbers may be floats. */}}
{{- define "proxy.config" -}}
{{- $own := dict "drain-timeout" (printf "%ds" (int .Values.drainSeconds)) }}
{{- if .Values.upstreams }}
{{- $_ := set $own "upstream" (first .Values.upstreams) }}
{{- if rest .Values.upstreams }}{{ $_ := set $own "replica" (rest .Values.upstreams) }}{{ end }}
{{- else }}
{{- $_ := set $own "upstream" (printf "http://127.0.0.1:%d%s" (int .Values.server.port) .Values.server.path) }}
{{- end }}
{{- range $key, $value := merge (deepCopy .Values.config) $own }}
{{ $key }} = {{ if kindIs "float64" $value }}{{ if eq (floor $value) $value }}{{ int64 $value }}{{ else }}{{ $value }}{{ end }}{{ else }}{{ toJson $value }}{{ end }}
{{- end }}
{{- end }}
