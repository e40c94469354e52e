"""What the command line says of itself: descriptions and examples."""

from typing import Final

DESCRIPTION: Final = """\
A reverse proxy that lets stateless MCP clients use an unmodified stateful MCP server.

It keeps the server's sessions alive while clients come and go: their DELETEs are absorbed, their
forgotten or outdated session ids still work, and the next client gets the session back, state included.
"""

EXAMPLES: Final = """\
examples:
  See the problem and its solution on this machine:
    mcp-session-proxy demo

  See what stateless clients would suffer from a server:
    mcp-session-proxy check http://127.0.0.1:8000/mcp

  Put the proxy in front of a server, and point the clients at http://127.0.0.1:8080/mcp:
    mcp-session-proxy serve http://127.0.0.1:8000/mcp

  The same for a server that is a command and speaks over stdio; each session has a process of its own:
    mcp-session-proxy serve --stdio -- npx -y @modelcontextprotocol/server-memory

  See all options:
    mcp-session-proxy serve --help
"""

SERVE_DESCRIPTION: Final = """\
Put the proxy in front of one MCP server.

Clients are pointed at the proxy instead of the server: same path, other port. Nothing changes at the
server. Every option is also an environment variable (--idle-timeout is MCP_SESSION_PROXY_IDLE_TIMEOUT)
and a key of the TOML file given with --config; a flag wins over a variable, a variable over the file.

Durations are written 500ms, 30s, 5m, 2h, 1d or as seconds; sizes 512KiB, 4MiB or as bytes. Flags that
take a NAME, an ORIGIN or a HOST can be repeated.

On SIGHUP, the file and the TLS files are read again. What is marked live changes then; the rest needs a
restart. SIGTERM and Ctrl-C finish the requests in flight first; a second one ends the program at once.
"""

SERVE_EXAMPLES: Final = """\
examples:
  A sidecar: same machine as the server, every caller one party (the defaults):
    mcp-session-proxy serve http://127.0.0.1:8000/mcp

  For many users, told apart by their Authorization header; the rest get nothing to share:
    mcp-session-proxy serve http://127.0.0.1:8000/mcp --listen :8080 --anonymous isolate

  Behind a public name with OAuth:
    mcp-session-proxy serve http://127.0.0.1:8000/mcp --listen :8080 \\
        --public-url https://mcp.example.com --allowed-host mcp.example.com

  A server that is a command; callers bring their own token, which their process gets as a variable:
    mcp-session-proxy serve --stdio --stdio-env-from-header X-GitHub-Token=GITHUB_TOKEN -- github-server

  A clean session for every call, three kept ready:
    mcp-session-proxy serve http://127.0.0.1:8000/mcp --sharing fresh --min-idle 3
"""

DEMO_DESCRIPTION: Final = """\
Start a bundled stateful MCP server and show what a client like OpenAI's Responses API, which ends its
session before it calls a tool, gets from it: directly, and through the proxy.

Takes the options of serve, too.
"""

CONFIG_DESCRIPTION: Final = """\
See or check the configuration that serve would run with, from the same options, environment variables
and file.
"""

CONFIG_SHOW_DESCRIPTION: Final = """\
Show every option's value and where it comes from: a flag, an environment variable, the file, or its
default. Takes the options of serve. Secrets are not shown.
"""

CONFIG_CHECK_DESCRIPTION: Final = """\
Check the configuration, with the TLS files that it names, and start nothing. Ends with status 0 when it
is right; otherwise tells every problem in a line of its own and ends with status 2. Takes the options of
serve.
"""

CHECK_DESCRIPTION: Final = """\
Be each kind of client that exists today at an MCP server, and tell how the server treats them: what it
is, what it does with lost sessions, DELETE, second streams and pings, which clients suffer, and which
flags of serve suit it. Nothing is changed there: no tool is called unless --call names one, and every
session is closed again.

The URL and the options of TLS may also come from the environment or from the file, as for serve.
"""

CHECK_EXAMPLES: Final = """\
examples:
  What would stateless clients suffer from this server?
    mcp-session-proxy check http://127.0.0.1:8000/mcp

  And through the proxy that runs in front of it?
    mcp-session-proxy check http://127.0.0.1:8000/mcp --through http://127.0.0.1:8080

  Does its state survive? (Calls the tool about twenty times: choose one that is harmless.)
    mcp-session-proxy check http://127.0.0.1:8000/mcp --call increment

  With a credential that does not appear in the list of processes:
    printf 'Authorization: Bearer %s' "$TOKEN" | mcp-session-proxy check https://example.com/mcp --header @-

  How does a server start and leave that is a command?
    mcp-session-proxy check --stdio -- npx -y @modelcontextprotocol/server-memory

exit status:
  0  every kind of client works (with --through: works through the proxy)
  1  some would suffer
  2  wrong usage
  3  it could not be checked: not reachable, not MCP, or it wants another credential
"""

COMPLETION_DESCRIPTION: Final = """\
Print a script that makes the Tab key complete commands, options and their values. To have it in every
new shell:

  bash:  mcp-session-proxy completion bash > ~/.local/share/bash-completion/completions/mcp-session-proxy
  zsh:   mcp-session-proxy completion zsh > ~/.zfunc/_mcp-session-proxy    (a folder of your fpath)
  fish:  mcp-session-proxy completion fish > ~/.config/fish/completions/mcp-session-proxy.fish
"""

STATE_DESCRIPTION: Final = "Look at what a proxy keeps in the directory that --state-dir names."

STATE_CHECK_DESCRIPTION: Final = """\
Say what is in a state directory, and whether a proxy of this version could go on with it. Nothing in it is
changed, and a proxy may be at work there.

exit status:
  0  a proxy could
  1  something is wrong, or there is nothing
"""
