// Mastra's MCP client: `node mastra.mjs URL TOKEN PLAN`.

import { headers, library, plan, run, textOf, url } from "../../e2e/clients/plan.mjs";

const { MCPClient } = await library("@mastra/mcp/dist/index.js");
let number = 0;

async function connection() {
  const told = { answers: [] };
  number += 1;
  const client = new MCPClient({ id: `it-${number}`, servers: { it: { url: new URL(url), requestInit: { headers } } } });
  const tools = client.listTools ? await client.listTools() : await client.getTools();
  for (const [name, given] of plan.calls) {
    const tool = tools[`it_${name}`];
    const answer = await tool.execute(given, {});
    told.answers.push(answer?.content ? textOf(answer) : String(answer?.result ?? JSON.stringify(answer)));
  }
  await client.disconnect();
  return told;
}

await run(connection);
