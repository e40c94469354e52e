// What the JavaScript clients here have in common: what each is given, what it answers when the server asks it,
// and what it prints. run.py describes it. E2E_NODE_MODULES names the node_modules folder to take a client from.

const [url, token, planText] = process.argv.slice(2);

export { url };
export const plan = JSON.parse(planText);
export const headers = { Authorization: `Bearer ${token}` };

/** Loads a file of an installed package. */
export const library = (path) => import(`${process.env.E2E_NODE_MODULES}/${path}`);

/** The text of a tool's result. */
export const textOf = (result) => result.content.map((part) => part.text ?? "").join("");

/** What the client says, by what it is asked. */
export const answers = {
  "elicitation/create": () => ({ action: "accept", content: { name: "Ada" } }),
  "sampling/createMessage": () => ({
    role: "assistant",
    model: "none",
    content: { type: "text", text: "hello" },
  }),
  "roots/list": () => ({ roots: [{ uri: "file:///srv/data" }] }),
};

/** Does the planned number of connections, one after the other, and prints what each saw. */
export async function run(connection) {
  const all = [];
  for (let number = 0; number < (plan.connections ?? 1); number += 1) all.push(await connection());
  console.log(JSON.stringify(all));
  process.exit(0);
}
