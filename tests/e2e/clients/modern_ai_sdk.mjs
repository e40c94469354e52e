// The AI SDK's MCP client, which asks for the version itself: `node modern_ai_sdk.mjs URL TOKEN PLAN`.
// The plan is as run.py describes; E2E_NODE_MODULES names the node_modules folder to take the client from.

const { createMCPClient } = await import(`${process.env.E2E_NODE_MODULES}/@ai-sdk/mcp/dist/index.js`);

const [url, token, planText] = process.argv.slice(2);
const plan = JSON.parse(planText);

async function connection() {
  const told = { answers: [] };
  const client = await createMCPClient({
    transport: { type: "http", url, headers: { Authorization: `Bearer ${token}` } },
  });
  told.protocol = client.initializeResult.protocolVersion;
  const tools = await client.tools();
  told.tools = Object.keys(tools);
  for (const [name, given] of plan.calls) {
    const result = await tools[name].execute(given, { toolCallId: "1", messages: [] });
    told.answers.push(result.content.map((part) => part.text ?? "").join(""));
  }
  await client.close();
  return told;
}

const all = [];
for (let number = 0; number < (plan.connections ?? 1); number += 1) all.push(await connection());
console.log(JSON.stringify(all));
process.exit(0);
