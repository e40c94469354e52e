// A stateful MCP server with the experimental tasks of the TypeScript SDK 1: `node tasks_server.mjs PORT`.
// E2E_NODE_MODULES names the node_modules folder to take the packages from. The tools are those of tasks_server.py.

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";

const modules = process.env.E2E_NODE_MODULES;
const sdk = `${modules}/@modelcontextprotocol/sdk/dist/esm`;
const { McpServer } = await import(`${sdk}/server/mcp.js`);
const { StreamableHTTPServerTransport } = await import(`${sdk}/server/streamableHttp.js`);
const { InMemoryTaskMessageQueue, InMemoryTaskStore } = await import(`${sdk}/experimental/tasks/index.js`);
const { CreateMessageResultSchema, ElicitResultSchema } = await import(`${sdk}/types.js`);
const { z } = await import(`${modules}/zod/index.js`);

const STEP_MS = 50;
const NAMED = { type: "object", properties: { name: { type: "string" } }, required: ["name"] };
const CONFIRMED = { type: "object", properties: { confirm: { type: "boolean" } }, required: ["confirm"] };

const runs = {};
const cancelled = {};
const text = (said, isError = false) => ({ content: [{ type: "text", text: said }], isError });
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// One tool's way to its client while it runs as a task.
function way(taskId, { taskStore, sendRequest }) {
  const related = { relatedTask: { taskId } };
  return {
    say: (message) => taskStore.updateTaskStatus(taskId, "working", message),
    ask: async (message, requestedSchema) => {
      const params = { mode: "form", message, requestedSchema };
      const answer = await sendRequest({ method: "elicitation/create", params }, ElicitResultSchema, related);
      return answer.content ?? {};
    },
    model: async (prompt) => {
      const params = { messages: [{ role: "user", content: { type: "text", text: prompt } }], maxTokens: 10 };
      const request = { method: "sampling/createMessage", params };
      return (await sendRequest(request, CreateMessageResultSchema, related)).content.text;
    },
    isCancelled: async () => (await taskStore.getTask(taskId)).status === "cancelled",
  };
}

const register = async (at) => text(`Registered ${(await at.ask("What is your name?", NAMED)).name ?? "nobody"}`);
const TOOLS = {
  report: ["required", { topic: z.string() }, async (at, { topic }) => {
    for (const step of [1, 2]) {
      await at.say(`${step} of 2`);
      await sleep(STEP_MS);
    }
    return text(`Report on ${topic}`);
  }],
  register: ["required", {}, register],
  slow_compute: ["optional", { seconds: z.number(), label: z.string().default("slow") }, async (at, { seconds, label }) => {
    const end = Date.now() + seconds * 1000;
    while (Date.now() < end) {
      await sleep(Math.min(STEP_MS, end - Date.now()));
      if (await at.isCancelled()) {
        cancelled[label] = (cancelled[label] ?? 0) + 1;
        break;
      }
    }
    return text(`${label}: done`);
  }],
  confirm_delete: ["optional", { filename: z.string() }, async (at, { filename }) => {
    const { confirm } = await at.ask(`Delete ${filename}?`, CONFIRMED);
    return text(confirm ? `Deleted ${filename}` : `Kept ${filename}`);
  }],
  ask_model: ["optional", { prompt: z.string() }, async (at, { prompt }) => text(await at.model(prompt))],
  multi_input: ["optional", {}, async (at) => {
    const [first, second] = await Promise.all(
      ["first", "second"].map((who) => at.ask(`Name of the ${who}?`, NAMED)),
    );
    return text(`${first.name ?? "nobody"} and ${second.name ?? "nobody"}`);
  }],
  test_tool_with_task: ["required", {}, async (_at, { name }) => text(`Task of ${name}`)],
  failing_job: ["required", {}, async () => text("The job failed", true)],
  protocol_error_job: ["optional", {}, async () => {
    throw new Error("The job broke the protocol");
  }],
};

function count(name, args) {
  const sorted = Object.fromEntries(Object.entries(args).sort());
  const run = `${name} ${JSON.stringify(sorted)}`;
  runs[run] = (runs[run] ?? 0) + 1;
}

// Asks while the call is no task yet: on the call's own stream.
async function askBefore({ sendRequest }) {
  const params = { mode: "form", message: "What is your name?", requestedSchema: NAMED };
  const answer = await sendRequest({ method: "elicitation/create", params }, ElicitResultSchema);
  return answer.content?.name ?? "nobody";
}

// Does the work of a task to its end. What throws is an error of the protocol: the SDK has no place for one, so the
// task fails without a result.
async function work(task, job, args, extra) {
  try {
    const result = await job(way(task.taskId, extra), args);
    await sleep(STEP_MS);
    await extra.taskStore.storeTaskResult(task.taskId, result.isError ? "failed" : "completed", result);
  } catch (error) {
    await extra.taskStore.updateTaskStatus(task.taskId, "failed", error.message).catch(() => {});
  }
}

function newServer() {
  const server = new McpServer(
    { name: "tasks-ts", version: "1.0.0" },
    {
      capabilities: { tasks: { list: {}, cancel: {}, requests: { tools: { call: {} } } } },
      taskStore: new InMemoryTaskStore(),
      taskMessageQueue: new InMemoryTaskMessageQueue(),
    },
  );
  server.registerTool("greet", { inputSchema: { name: z.string() } }, async ({ name }) => {
    count("greet", { name });
    return text(`Hello, ${name}!`);
  });
  for (const [name, [taskSupport, inputSchema, job]] of Object.entries(TOOLS)) {
    server.experimental.tasks.registerToolTask(name, { inputSchema, execution: { taskSupport } }, {
      createTask: async (args, extra) => {
        count(name, args);
        if (name === "test_tool_with_task") args = { name: await askBefore(extra) };
        const task = await extra.taskStore.createTask({ ttl: extra.taskRequestedTtl, pollInterval: STEP_MS });
        work(task, job, args, extra);
        return { task };
      },
      getTask: async (_args, extra) => extra.taskStore.getTask(extra.taskId),
      getTaskResult: async (_args, extra) => extra.taskStore.getTaskResult(extra.taskId),
    });
  }
  return server;
}

const transports = new Map();
createServer(async (request, response) => {
  if (request.url === "/stats") {
    response.setHeader("Content-Type", "application/json").end(JSON.stringify({ runs, cancelled }));
    return;
  }
  let transport = transports.get(request.headers["mcp-session-id"]);
  if (transport === undefined && request.headers["mcp-session-id"]) {
    response.writeHead(404).end("Session not found");
    return;
  }
  if (transport === undefined) {
    transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (id) => transports.set(id, transport),
    });
    transport.onclose = () => transports.delete(transport.sessionId);
    await newServer().connect(transport);
  }
  await transport.handleRequest(request, response);
}).listen(Number(process.argv[2]), "127.0.0.1");
