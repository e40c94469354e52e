// The official TypeScript SDK, 1.x: `node sdk_v1.mjs URL TOKEN PLAN`; as run.py describes.
// E2E_NODE_MODULES names the node_modules folder to take the SDK from.

const sdk = `${process.env.E2E_NODE_MODULES}/@modelcontextprotocol/sdk/dist/esm`;
const { Client } = await import(`${sdk}/client/index.js`);
const { StreamableHTTPClientTransport } = await import(`${sdk}/client/streamableHttp.js`);
const types = await import(`${sdk}/types.js`);

const [url, token, planText] = process.argv.slice(2);
const plan = JSON.parse(planText);

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
    client.setRequestHandler(types.ElicitRequestSchema, () => ({ action: "accept", content: { name: "Ada" } }));
    client.setRequestHandler(types.CreateMessageRequestSchema, () => ({
      role: "assistant",
      model: "none",
      content: { type: "text", text: "hello" },
    }));
    client.setRequestHandler(types.ListRootsRequestSchema, () => ({ roots: [{ uri: "file:///srv/data" }] }));
  }
  const transport = new StreamableHTTPClientTransport(new URL(url), {
    requestInit: { headers: { Authorization: `Bearer ${token}` } },
  });
  await client.connect(transport);
  told.protocol = transport.protocolVersion;
  told.tools = (await client.listTools()).tools.map((tool) => tool.name);
  if (plan.full) await client.subscribeResource({ uri: "counter://shared" });
  for (const [name, given] of plan.calls) {
    const onprogress = (progress) => told.progress.push(progress.progress);
    const result = await client.callTool({ name, arguments: given }, undefined, { onprogress, timeout: 20000 });
    told.answers.push(result.content.map((part) => part.text ?? "").join(""));
  }
  if (plan.full) await update;
  if (plan.terminate) await transport.terminateSession();
  await client.close();
  return told;
}

const all = [];
for (let number = 0; number < (plan.connections ?? 1); number += 1) all.push(await connection());
console.log(JSON.stringify(all));
process.exit(0);
