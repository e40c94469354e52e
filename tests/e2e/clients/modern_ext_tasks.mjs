// The official client of the extension for tasks, over the TypeScript client 2.x: `node modern_ext_tasks.mjs URL TOKEN
// PLAN`. The plan is as run.py describes; `kinds` says which calls became tasks, `states` what was seen of each.

import { answers, headers, library, plan, run, textOf, url } from "./plan.mjs";

const { Client, StreamableHTTPClientTransport } = await library("@modelcontextprotocol/client/dist/index.mjs");
const { createTaskSessionFromClient, resultFromTaskOutcome } = await library(
  "@modelcontextprotocol/ext-tasks/dist/client/index.js",
);

const VERSION = "2026-07-28";
const info = { name: "ext-tasks", version: "1.0.0" };
const capabilities = { elicitation: {}, sampling: {}, roots: {}, extensions: { "io.modelcontextprotocol/tasks": {} } };
const METHODS = { elicitation: "elicitation/create", sampling: "sampling/createMessage", roots: "roots/list" };
let number = 0;

// What the package leaves to its host: the requests that the SDK's own client has no types for.
async function rawDispatch(request, { signal } = {}) {
  const { taskId, name } = request.params;
  const response = await fetch(url, {
    method: "POST",
    signal,
    headers: {
      ...headers,
      "Content-Type": "application/json",
      Accept: "application/json, text/event-stream",
      "MCP-Protocol-Version": VERSION,
      "Mcp-Method": request.method,
      "Mcp-Name": taskId ?? name,
    },
    body: JSON.stringify({ ...request, jsonrpc: "2.0", id: ++number }),
  });
  const body = await response.text();
  const isStream = response.headers.get("Content-Type").startsWith("text/event-stream");
  const lines = isStream ? body.split("\n").filter((line) => line.startsWith("data: {")) : [];
  const answer = JSON.parse(isStream ? lines.at(-1).slice(6) : body);
  return answer.error ? { kind: "error", error: answer.error } : { kind: "result", result: answer.result };
}

async function connection() {
  const told = { answers: [], kinds: [], states: [] };
  const client = new Client(info, { capabilities, versionNegotiation: { mode: { pin: VERSION } } });
  await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
  told.tools = (await client.listTools()).tools.map((tool) => tool.name);
  const session = createTaskSessionFromClient(client, {
    endpointId: url,
    rawDispatch,
    v2RequestFraming: { protocolVersion: VERSION, clientInfo: info, clientCapabilities: capabilities },
    onInputRequest: async ({ kind }) => answers[METHODS[kind]](),
  });
  for (const [name, given] of plan.calls) {
    const execution = await session.callTool(name, given);
    const states = [];
    told.kinds.push(execution.kind);
    told.states.push(states);
    const onEvent = (event) => event.type === "task" && states.push([event.task.status, event.task.statusMessage]);
    const { outcome } = await execution.settle({ onEvent });
    const text = outcome.status === "completed" && textOf(resultFromTaskOutcome(outcome));
    told.answers.push(text || `${outcome.status}: ${outcome.error?.message}`);
  }
  await session.close();
  await client.close();
  return told;
}

await run(connection);
