// The official TypeScript client, 2.x, which asks what the server speaks: `node sdk_v2.mjs URL TOKEN PLAN`.

import { headers, library, plan, run, textOf, url } from "../../e2e/clients/plan.mjs";

const { Client, StreamableHTTPClientTransport } = await library("@modelcontextprotocol/client/dist/index.mjs");

async function connection() {
  const told = { answers: [] };
  const client = new Client({ name: "sdk-v2", version: "1.0.0" }, { versionNegotiation: { mode: "auto" } });
  await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
  for (const [name, given] of plan.calls) told.answers.push(textOf(await client.callTool({ name, arguments: given })));
  await client.close();
  return told;
}

await run(connection);
