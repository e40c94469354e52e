// A FastMCP (TypeScript) server with one counter per session: `node fastmcp_server.mjs PORT`.
// E2E_NODE_MODULES names the node_modules folder to take the packages from.

const modules = process.env.E2E_NODE_MODULES;
const { FastMCP } = await import(`${modules}/fastmcp/dist/FastMCP.js`);
const { z } = await import(`${modules}/zod/index.js`);

const server = new FastMCP({ name: "fastmcp-ts", version: "1.0.0" });
const counts = new Map();

server.addTool({
  name: "increment",
  description: "Count one more in this session",
  parameters: z.object({}),
  execute: async (_arguments, { sessionId }) => {
    counts.set(sessionId, (counts.get(sessionId) ?? 0) + 1);
    return String(counts.get(sessionId));
  },
});

server.addTool({
  name: "echo",
  description: "Say it again",
  parameters: z.object({ message: z.string() }),
  execute: async ({ message }) => `Echo: ${message}`,
});

await server.start({
  transportType: "httpStream",
  httpStream: { port: Number(process.argv[2]), host: "127.0.0.1" },
});
