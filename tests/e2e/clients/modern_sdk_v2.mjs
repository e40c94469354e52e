// The official TypeScript client, 2.x, pinned to 2026-07-28: `node modern_sdk_v2.mjs URL TOKEN PLAN`.
// The plan is as run.py describes: with `full` the client answers what it is asked, wants log messages, and
// listens to a resource; with `answers` it does the first only.

import { answers, headers, library, plan, run, textOf, url } from "./plan.mjs";

const { Client, StreamableHTTPClientTransport } = await library("@modelcontextprotocol/client/dist/index.mjs");

const RESOURCE = "counter://shared";
const isAsked = plan.full || plan.answers;

async function connection() {
  const told = { answers: [], progress: [], logs: [], updated: [] };
  const client = new Client(
    { name: "sdk-v2", version: "1.0.0" },
    {
      capabilities: isAsked ? { elicitation: {}, sampling: {}, roots: {} } : {},
      versionNegotiation: { mode: { pin: "2026-07-28" } },
    },
  );
  if (isAsked) {
    for (const [method, answer] of Object.entries(answers)) client.setRequestHandler(method, answer);
  }
  client.setNotificationHandler("notifications/message", (note) => told.logs.push(note.params.data));
  const update = new Promise((resolve) =>
    client.setNotificationHandler("notifications/resources/updated", (note) => {
      told.updated.push(note.params.uri);
      resolve();
    }),
  );
  const transport = new StreamableHTTPClientTransport(new URL(url), {
    requestInit: { headers },
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
    told.answers.push(textOf(result));
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

await run(connection);
