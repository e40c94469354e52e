// The official TypeScript client, 2.x, pinned to 2026-07-28: `node modern_sdk_v2.mjs URL TOKEN PLAN`.
// The plan is as run.py describes: with `full` the client answers what it is asked, wants log messages, and
// listens to a resource; with `answers` it does the first only.
// E2E_NODE_MODULES names the node_modules folder to take the client from.

const library = `${process.env.E2E_NODE_MODULES}/@modelcontextprotocol/client/dist/index.mjs`;
const { Client, StreamableHTTPClientTransport } = await import(library);

const RESOURCE = "counter://shared";
const [url, token, planText] = process.argv.slice(2);
const plan = JSON.parse(planText);
const answers = plan.full || plan.answers;

async function connection() {
  const told = { answers: [], progress: [], logs: [], updated: [] };
  const client = new Client(
    { name: "sdk-v2", version: "1.0.0" },
    {
      capabilities: answers ? { elicitation: {}, sampling: {}, roots: {} } : {},
      versionNegotiation: { mode: { pin: "2026-07-28" } },
    },
  );
  if (answers) {
    client.setRequestHandler("elicitation/create", () => ({ action: "accept", content: { name: "Ada" } }));
    client.setRequestHandler("sampling/createMessage", () => ({
      role: "assistant",
      model: "none",
      content: { type: "text", text: "hello" },
    }));
    client.setRequestHandler("roots/list", () => ({ roots: [{ uri: "file:///srv/data" }] }));
  }
  client.setNotificationHandler("notifications/message", (note) => told.logs.push(note.params.data));
  const update = new Promise((resolve) =>
    client.setNotificationHandler("notifications/resources/updated", (note) => {
      told.updated.push(note.params.uri);
      resolve();
    }),
  );
  const transport = new StreamableHTTPClientTransport(new URL(url), {
    requestInit: { headers: { Authorization: `Bearer ${token}` } },
  });
  await client.connect(transport);
  told.protocol = client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion;
  told.tools = (await client.listTools()).tools.map((tool) => tool.name);
  const subscription = plan.full ? await client.listen({ resourceSubscriptions: [RESOURCE] }) : undefined;
  for (const [name, given] of plan.calls) {
    const onprogress = ({ progress, total }) => {
      if (total !== undefined) told.progress.push(progress); // the others are the client's own, one per round
    };
    const _meta = plan.full ? { "io.modelcontextprotocol/logLevel": "info" } : {};
    const result = await client.callTool({ name, arguments: given, _meta }, { onprogress, timeout: 20000 });
    told.answers.push(result.content.map((part) => part.text ?? "").join(""));
  }
  if (plan.full) {
    await update;
    told.resource = (await client.readResource({ uri: RESOURCE })).contents[0].mimeType;
    told.prompt = (await client.getPrompt({ name: "greet", arguments: { name: "Bo" } })).messages[0].content.text;
    await subscription.close();
  }
  await client.close();
  return told;
}

const all = [];
for (let number = 0; number < (plan.connections ?? 1); number += 1) all.push(await connection());
console.log(JSON.stringify(all));
process.exit(0);
