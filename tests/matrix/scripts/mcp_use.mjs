// mcp-use for TypeScript: `node mcp_use.mjs URL TOKEN PLAN`.

import { headers, library, plan, run, textOf, url } from "../../e2e/clients/plan.mjs";

const { MCPClient } = await library("mcp-use/dist/index.js");

async function connection() {
  const told = { answers: [] };
  const client = new MCPClient({ mcpServers: { it: { url, headers } } });
  const session = await client.createSession("it");
  for (const [name, given] of plan.calls) told.answers.push(textOf(await session.callTool(name, given)));
  await client.closeAllSessions();
  return told;
}

await run(connection);
