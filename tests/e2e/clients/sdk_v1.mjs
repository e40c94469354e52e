// The official TypeScript SDK, 1.x: `node sdk_v1.mjs URL TOKEN PLAN`; as run.py describes.

import { answers, headers, library, plan, run, textOf, url } from "./plan.mjs";

const sdk = "@modelcontextprotocol/sdk/dist/esm";
const { Client } = await library(`${sdk}/client/index.js`);
const { StreamableHTTPClientTransport } = await library(`${sdk}/client/streamableHttp.js`);
const types = await library(`${sdk}/types.js`);

const asked = {
  "elicitation/create": types.ElicitRequestSchema,
  "sampling/createMessage": types.CreateMessageRequestSchema,
  "roots/list": types.ListRootsRequestSchema,
};

async function connection() {
  const told = { answers: [], progress: [], logs: [], updated: [] };
  const capabilities = plan.full ? { elicitation: {}, sampling: {}, roots: {} } : {};
  const client = new Client({ name: "sdk-v1", version: "1.0.0" }, { capabilities });
  const update = new Promise((resolve) =>
    client.setNotificationHandler(types.ResourceUpdatedNotificationSchema, (note) => {
      told.updated.push(note.params.uri);
      resolve();
    }),
  );
  client.setNotificationHandler(types.LoggingMessageNotificationSchema, (note) => {
    told.logs.push(note.params.data);
  });
  if (plan.full) {
    for (const [method, answer] of Object.entries(answers)) client.setRequestHandler(asked[method], answer);
  }
  const transport = new StreamableHTTPClientTransport(new URL(url), {
    requestInit: { headers },
  });
  await client.connect(transport);
  told.protocol = transport.protocolVersion;
  told.tools = (await client.listTools()).tools.map((tool) => tool.name);
  if (plan.full) await client.subscribeResource({ uri: "counter://shared" });
  for (const [name, given] of plan.calls) {
    const onprogress = (progress) => told.progress.push(progress.progress);
    const result = await client.callTool({ name, arguments: given }, undefined, { onprogress, timeout: 20000 });
    told.answers.push(textOf(result));
  }
  if (plan.full) await update;
  if (plan.terminate) await transport.terminateSession();
  await client.close();
  return told;
}

await run(connection);
