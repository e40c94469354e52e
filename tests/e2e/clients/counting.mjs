// The TypeScript SDK, calling without pause: `node counting.mjs URL TOKEN PLAN`. As counting.py says; the kinds are v1 and
// v2.

import { headers, library, plan, textOf, url } from "./plan.mjs";

const FAILURES = 2;
const token = headers.Authorization.split(" ")[1];
const timeout = plan.seconds * 1000;
let stopped = false;
let calls = 0;

process.stdin.resume();
process.stdin.on("end", () => { stopped = true; });

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

const kinds = {
  async v1() {
    const sdk = "@modelcontextprotocol/sdk/dist/esm/client";
    const { Client } = await library(`${sdk}/index.js`);
    const { StreamableHTTPClientTransport } = await library(`${sdk}/streamableHttp.js`);
    const client = new Client({ name: "counting-v1", version: "1.0.0" });
    const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });
    await client.connect(transport, { timeout });
    return {
      call: (given) => client.callTool({ name: "count", arguments: given }, undefined, { timeout }),
      async close() {
        await transport.terminateSession();
        await client.close();
      },
    };
  },
  async v2() {
    const { Client, StreamableHTTPClientTransport } = await library("@modelcontextprotocol/client/dist/index.mjs");
    const client = new Client({ name: "counting-v2", version: "1.0.0" }, { versionNegotiation: { mode: { pin: "2026-07-28" } } });
    await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
    return {
      call: (given) => client.callTool({ name: "count", arguments: given }, { timeout }),
      close: () => client.close(),
    };
  },
};

async function use(connection) {
  let failures = 0;
  while (!stopped && failures < FAILURES) {
    calls += 1;
    const tag = `${token}/${calls}`;
    try {
      say({ tag, count: textOf(await connection.call({ tag })) });
      failures = 0;
    } catch (error) {
      failures += 1;
      say({ tag, error: `${error.name}: ${error.message} ${error.cause?.code ?? ""}` });
    }
    await pause(50);
  }
}

while (!stopped) {
  try {
    const connection = await kinds[plan.kind]();
    await use(connection);
    await connection.close();
  } catch (error) {
    say({ tag: null, error: `${error.name}: ${error.message} ${error.cause?.code ?? ""}` });
    await pause(50);
  }
}
process.exit(0);
