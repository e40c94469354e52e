// The AI SDK's MCP client, which asks for the version itself: `node modern_ai_sdk.mjs URL TOKEN PLAN`.
// The plan is as run.py describes.

import { headers, library, plan, run, textOf, url } from "./plan.mjs";

const { createMCPClient } = await library("@ai-sdk/mcp/dist/index.js");

async function connection() {
  const told = { answers: [] };
  const client = await createMCPClient({
    transport: { type: "http", url, headers },
  });
  told.protocol = client.initializeResult.protocolVersion;
  const tools = await client.tools();
  told.tools = Object.keys(tools);
  for (const [name, given] of plan.calls) {
    const result = await tools[name].execute(given, { toolCallId: "1", messages: [] });
    told.answers.push(textOf(result));
  }
  await client.close();
  return told;
}

await run(connection);
