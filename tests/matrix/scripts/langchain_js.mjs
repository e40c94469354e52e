// LangChain's MCP adapters for JavaScript: `node langchain_js.mjs URL TOKEN PLAN`.

import { headers, library, plan, run, url } from "../../e2e/clients/plan.mjs";

const { MultiServerMCPClient } = await library("@langchain/mcp-adapters/dist/index.js");

async function connection() {
  const told = { answers: [] };
  const client = new MultiServerMCPClient({ mcpServers: { it: { transport: "http", url, headers } } });
  const tools = await client.getTools();
  for (const [name, given] of plan.calls) {
    const answer = await tools.find((tool) => tool.name === name).invoke(given);
    // It gives texts as they are, and results that have a structure as one object.
    told.answers.push(typeof answer === "string" ? answer : (answer.text ?? answer[0]?.text));
  }
  await client.close();
  return told;
}

await run(connection);
