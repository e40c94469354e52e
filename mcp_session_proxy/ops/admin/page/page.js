// The status page: asks the admin API every two seconds and shows what it says.
// Texts from outside (clients' names, errors) only ever become text nodes; the page's policy forbids the rest.

const EVERY_MILLISECONDS = 2000;
const PATIENCE_MILLISECONDS = 8000;
const SHOWN_SESSIONS = 200;
const EVENTS_OF_EACH_KIND = 50;
const FEW_ROWS = { narrow: 8, wide: 40 };
const NARROW = matchMedia("(max-width: 46rem)");
const MINUTES = 60;

const $ = (id) => document.getElementById(id);

/** An element with a class and children; texts become text nodes. */
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function setData(element, name, value) {
  if (value === undefined || value === null) delete element.dataset[name];
  else if (element.dataset[name] !== value) element.dataset[name] = value;
}

// -- how things are written ----------------------------------------------------------------------------

const count = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minuteClock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

function plural(number, one, many = `${one}s`) {
  return `${count.format(number)} ${number === 1 ? one : many}`;
}

function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")}`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")}`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** A time that somebody waits: "12 ms", "3.4 s". */
function wait(seconds) {
  if (seconds === null) return "–";
  if (seconds < 1) return `${seconds < 0.01 ? (seconds * 1000).toFixed(1) : Math.round(seconds * 1000)} ms`;
  return seconds < 10 ? `${seconds.toFixed(1)} s` : span(seconds);
}

function rate(number) {
  return number > 0 && number < 10 ? number.toFixed(1) : count.format(Math.round(number));
}

function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}

// -- talking to the proxy ------------------------------------------------------------------------------

let token = null; // in memory only: gone when the page is

async function read(path) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MILLISECONDS) });
  if (!response.ok) throw new Error(`${path} answered ${response.status}`);
  return response.json();
}

/** Make a change; gives the answer's status and body. */
async function change(verb, path) {
  const headers = { "X-Requested-With": "mcp-session-proxy" };
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(path, { method: verb, headers, signal: AbortSignal.timeout(PATIENCE_MILLISECONDS) });
  return { status: response.status, ok: response.ok, body: await response.json().catch(() => ({})) };
}

// -- how it does ---------------------------------------------------------------------------------------

/** When a server that fails is tried again. */
function again(replica) {
  if (replica.breaker === "half-open") return "one is being tried";
  return `tried again in ${span(Math.ceil(replica.retry_after_seconds ?? 0))}`;
}

function describeReplicas(replicas) {
  const away = replicas.filter((each) => each.condition === "down");
  const failing = replicas.filter((each) => each.condition === "breaker-open");
  const parts = [];
  for (const each of away) parts.push(`${each.upstream} has taken no connections for ${span(each.down_seconds ?? 0)}.`);
  for (const each of failing) {
    parts.push(`${each.upstream} takes connections but opens no sessions (${each.last_error ?? "no reason known"}); ${again(each)}.`);
  }
  return { text: parts.join(" "), trouble: parts.length > 0 };
}

function judge(status) {
  const servers = describeReplicas(status.replicas);
  const up = status.replicas.filter((each) => each.condition === "up").length;
  const total = status.replicas.length;
  const serving = total === 1 ? "The server takes connections." : `${up} of ${total} servers take connections.`;
  const sentence = servers.trouble && total === 1 ? servers.text : `${serving} ${servers.text}`.trim();
  if (status.phase === "draining") {
    return ["warn", "Draining", "Requests in flight are finished, new ones are turned away. Then the proxy ends."];
  }
  if (status.phase === "starting") return ["warn", "Starting", "No server has been looked at yet."];
  if (status.phase !== "ready") return ["bad", "Server down", servers.text || "No server takes connections."];
  if (status.paused) {
    return ["warn", "Paused", `Requests wait for a session, and fail when they have waited too long. ${sentence}`];
  }
  if (up === 0) return ["bad", "Failing", sentence];
  return [servers.trouble ? "warn" : "ok", "Ready", sentence];
}

function showVerdict(mood, headline, sentence) {
  setData($("verdict"), "mood", mood);
  setText($("headline"), headline);
  setText($("sentence"), sentence);
  document.title = `${headline} · mcp-session-proxy`;
}

const numbers = new Map();

function showNumber(name, value, detail, mood) {
  let entry = numbers.get(name);
  if (entry === undefined) {
    const [term, main, small] = [make("dt", "", name), make("span"), make("small")];
    const box = make("div", "", term, make("dd", "", main, small));
    entry = { box, main, small };
    numbers.set(name, entry);
    $("numbers").append(box);
  }
  setText(entry.main, value);
  setText(entry.small, detail);
  setData(entry.box, "mood", mood);
}

/** By era, a line for each, where both are in use; the numbers are the last minute's. */
function showTraffic({ total, eras }) {
  const used = eras.filter((each) => each.requests > 0);
  const byEra = (text) => used.map((era) => `${era.era} ${text(era)}`).join("\n");
  const isMixed = used.length > 1;
  showNumber("Calls per second", rate(total.per_second), isMixed ? byEra((era) => rate(era.per_second)) : used[0]?.era ?? "last minute");
  const half = (era) => `p50 ${wait(era.p50_seconds)}`;
  showNumber("Latency p95", wait(total.p95_seconds), isMixed ? byEra((era) => `${wait(era.p95_seconds)}, ${half(era)}`) : half(total));
}

function showNumbers(status) {
  const { totals, churn } = status;
  showTraffic(status.traffic);
  const { limits } = totals;
  const of = (name) => (limits[name] === undefined ? "" : `of ${count.format(limits[name])}`);
  const states = totals.upstream_sessions;
  const held = sum(Object.values(states));
  const busy = Object.entries(states).filter(([, number]) => number > 0).map(([state, number]) => `${number} ${state}`);
  const lost = sum(churn.upstream_lost);
  showNumber("Sessions lost", count.format(lost), "last hour", lost > 0 ? "warn" : null);
  const failures = sum(churn.failures);
  showNumber("Failures", count.format(failures), "last hour", failures === 0 ? null : sum(churn.failures.slice(-5)) > 0 ? "bad" : "warn");
  showNumber("Upstream sessions", count.format(held), busy.join(", ") || of("upstream_sessions"), held >= limits.upstream_sessions ? "warn" : null);
  showNumber("Client sessions", count.format(totals.client_sessions), of("client_sessions"));
  showNumber("Requests in flight", count.format(totals.in_flight), `${count.format(totals.exchanges_parked)} parked`);
  const standing = Object.entries(totals.tasks).filter(([, number]) => number > 0);
  const stands = standing.map(([status, number]) => `${count.format(number)} ${status.replace("_", " ")}`);
  showNumber("Tasks", count.format(sum(Object.values(totals.tasks))), stands.join(", ") || of("tasks"));
  showNumber("Waiting for a session", count.format(totals.waiters), of("waiters"), totals.waiters > 0 ? "warn" : null);
}

// -- churn ---------------------------------------------------------------------------------------------

const PLOT = { width: 600, height: 180, middle: 90, bar: 7.4, reach: 76 };
const LAYERS = ["began", "ended", "opened", "closed", "failed"];
const bars = [];
let series = null;
let chosenMinute = null;

function svg(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function buildPlot() {
  const plot = $("plot");
  const step = PLOT.width / MINUTES;
  for (let minute = 15; minute < MINUTES; minute += 15) {
    plot.append(svg("line", { class: "grid", x1: minute * step, x2: minute * step, y1: 0, y2: PLOT.height }));
  }
  for (let minute = 0; minute < MINUTES; minute += 1) {
    const bar = {};
    for (const layer of LAYERS) {
      bar[layer] = svg("rect", { class: layer, x: minute * step + (step - PLOT.bar) / 2, width: PLOT.bar, y: 0, height: 0 });
      plot.append(bar[layer]);
    }
    bars.push(bar);
  }
  plot.append(svg("line", { class: "axis", x1: 0, x2: PLOT.width, y1: PLOT.middle, y2: PLOT.middle }));
  const cursor = svg("rect", { class: "cursor", y: 0, height: PLOT.height, width: step, x: -step });
  plot.append(cursor);
  const frame = $("frame");
  const choose = (minute) => {
    chosenMinute = minute === null ? null : Math.min(MINUTES - 1, Math.max(0, minute));
    cursor.setAttribute("x", chosenMinute === null ? -step : chosenMinute * step);
    showMinute();
  };
  frame.addEventListener("pointermove", (event) => {
    const box = frame.getBoundingClientRect();
    choose(Math.floor(((event.clientX - box.left) / box.width) * MINUTES));
  });
  frame.addEventListener("pointerleave", () => choose(null));
  frame.addEventListener("blur", () => choose(null));
  frame.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -MINUTES, End: MINUTES };
    if (!(event.key in steps)) return;
    event.preventDefault();
    choose((chosenMinute ?? MINUTES - 1) + steps[event.key]);
  });
}

/** A round number that is not less: 1, 2, 5, 10, 20, 50 ... */
function roundUp(number) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, number)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((round) => round >= number);
}

function setBar(rectangle, y, height) {
  rectangle.setAttribute("y", y.toFixed(2));
  rectangle.setAttribute("height", height.toFixed(2));
}

function showChurn(churn) {
  series = churn;
  const above = churn.clients_began.map((number, minute) => number + churn.clients_ended[minute]);
  const below = churn.upstream_opened.map((number, minute) => number + churn.upstream_closed[minute]);
  const scale = roundUp(Math.max(1, ...above, ...below));
  const tall = (number) => (number === 0 ? 0 : Math.max(1.5, (number / scale) * PLOT.reach));
  bars.forEach((bar, minute) => {
    const began = tall(churn.clients_began[minute]);
    const ended = tall(churn.clients_ended[minute]);
    const opened = tall(churn.upstream_opened[minute]);
    const closed = tall(churn.upstream_closed[minute]);
    setBar(bar.began, PLOT.middle - began, began);
    setBar(bar.ended, PLOT.middle - began - ended, ended);
    setBar(bar.opened, PLOT.middle, opened);
    setBar(bar.closed, PLOT.middle + opened, closed);
    const failed = churn.failures[minute] + churn.upstream_lost[minute] > 0;
    setBar(bar.failed, PLOT.height - 5, failed ? 5 : 0);
  });
  setText($("scale"), `up to ${count.format(scale)} a minute`);
  const [began, ended] = [sum(churn.clients_began), sum(churn.clients_ended)];
  const [opened, closed] = [sum(churn.upstream_opened), sum(churn.upstream_closed)];
  const text = began + ended + opened + closed === 0
    ? "In the last hour no session began or ended."
    : `In the last hour clients began ${plural(began, "session")} and ended ${count.format(ended)}; `
      + `the server saw ${count.format(opened)} opened and ${count.format(closed)} closed.`;
  setText($("churn-text"), text);
  showMinute();
}

function showMinute() {
  let text = "";
  if (series !== null && chosenMinute !== null) {
    const ago = MINUTES - 1 - chosenMinute;
    const at = minuteClock.format(new Date(Date.now() - ago * 60000));
    const part = (name) => count.format(series[name][chosenMinute]);
    text = `${ago === 0 ? "This minute" : `${at}, ${ago} min ago`}: `
      + `clients began ${part("clients_began")}, ended ${part("clients_ended")}; `
      + `server opened ${part("upstream_opened")}, closed ${part("upstream_closed")}, lost ${part("upstream_lost")}; `
      + `${part("failures")} failures`;
  }
  setText($("churn-minute"), text);
}

// -- tables --------------------------------------------------------------------------------------------

/**
 * A table that is updated in place, so that focus and selection stay where they are.
 *
 * A column has a title, `sort` (the value to sort by), `text`, and perhaps `mood`, `kind` (a class) and
 * `button`, which makes the button of a row.
 */
class Table {
  constructor(element, columns, keyOf, sorted, empty) {
    this.rows = new Map();
    this.columns = columns;
    this.keyOf = keyOf;
    this.sorted = sorted;
    this.empty = make("caption", "empty", empty);
    this.empty.hidden = true;
    this.body = make("tbody");
    this.head = make("tr");
    element.setAttribute("role", "table");
    this.body.setAttribute("role", "rowgroup");
    this.head.setAttribute("role", "row");
    columns.forEach((column, index) => this.head.append(this.makeHeader(column, index)));
    const head = make("thead", "", this.head);
    head.setAttribute("role", "rowgroup");
    element.append(this.empty, head, this.body);
    this.showsAll = false;
    this.more = make("button", "more");
    this.more.type = "button";
    this.more.hidden = true;
    this.more.addEventListener("click", () => {
      this.showsAll = true;
      this.show(this.items);
    });
    element.after(this.more);
    this.items = [];
  }

  makeHeader(column, index) {
    const header = make("th", column.kind ?? "");
    header.setAttribute("role", "columnheader");
    header.scope = "col";
    if (column.sort === undefined) {
      header.append(make("span", "hidden", column.title));
      return header;
    }
    const button = make("button", "", column.title);
    button.type = "button";
    button.addEventListener("click", () => {
      const descending = this.sorted.index === index ? !this.sorted.descending : column.kind === "number";
      this.sorted = { index, descending };
      this.show(this.items);
    });
    header.append(button);
    return header;
  }

  show(items) {
    this.items = items;
    [...this.head.children].forEach((header, index) => {
      if (this.columns[index].sort === undefined) return;
      const order = this.sorted.descending ? "descending" : "ascending";
      header.setAttribute("aria-sort", index === this.sorted.index ? order : "none");
    });
    const { sort } = this.columns[this.sorted.index];
    const sign = this.sorted.descending ? -1 : 1;
    const ordered = [...items].sort((one, other) => sign * compare(sort(one), sort(other)));
    const seen = new Set();
    let place = this.body.firstChild;
    for (const item of this.cut(ordered)) {
      const key = this.keyOf(item);
      seen.add(key);
      const row = this.rows.get(key) ?? this.makeRow(key);
      this.fill(row, item);
      if (row.element === place) place = place.nextSibling;
      else this.body.insertBefore(row.element, place);
    }
    for (const [key, row] of this.rows) {
      if (!seen.has(key)) {
        row.element.remove();
        this.rows.delete(key);
      }
    }
    this.empty.hidden = items.length > 0;
  }

  /** The first rows of many, until somebody asks for all. */
  cut(ordered) {
    const few = NARROW.matches ? FEW_ROWS.narrow : FEW_ROWS.wide;
    const isCut = !this.showsAll && ordered.length > few;
    this.more.hidden = !isCut;
    setText(this.more, `Show all ${ordered.length}`);
    return isCut ? ordered.slice(0, few) : ordered;
  }

  makeRow(key) {
    const element = make("tr");
    element.setAttribute("role", "row");
    const cells = this.columns.map((column) => {
      const value = make("span", "value");
      const cell = make("td", column.kind ?? "", column.button ? column.button(key) : value);
      cell.setAttribute("role", "cell");
      cell.dataset.label = column.title;
      element.append(cell);
      return { cell, value };
    });
    const row = { element, cells };
    this.rows.set(key, row);
    return row;
  }

  fill(row, item) {
    this.columns.forEach((column, index) => {
      if (column.button) return;
      const { cell, value } = row.cells[index];
      const text = column.text(item);
      setText(value, text);
      if (column.kind?.includes("wide")) cell.title = text;
      if (column.mood) setData(cell, "mood", column.mood(item));
      if (column.kind === "number") cell.classList.toggle("zero", text === "0");
    });
  }
}

function compare(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other));
}

function number(title, key) {
  return { title, kind: "number", sort: (item) => item[key], text: (item) => count.format(item[key]) };
}

function duration(title, key) {
  return { title, kind: "number", sort: (item) => item[key], text: (item) => span(item[key]) };
}

function words(title, read, kind) {
  return { title, kind, sort: read, text: read };
}

const yesNo = (value) => (value ? "yes" : "no");
const CONDITIONS = {
  up: "up", down: "takes no connections", "breaker-open": "opens no sessions", unknown: "not looked at yet",
};
const STATE_MOODS = { idle: "ok", leased: "active", opening: "warn", closing: "warn" };
const CHILD_MOODS = { starting: "warn", serving: "ok", leaving: "warn" };
const CONDITION_MOODS = { up: "ok", down: "bad", "breaker-open": "bad", unknown: "warn" };

function killButton(session) {
  const button = make("button", "danger", "Kill");
  button.type = "button";
  button.setAttribute("aria-label", `Kill session ${session}`);
  button.addEventListener("click", () => ask(OPERATIONS.kill(session)));
  return button;
}

function describeCondition(replica) {
  const words = CONDITIONS[replica.condition] ?? replica.condition;
  if (replica.condition === "down") return `${words}, ${span(replica.down_seconds ?? 0)}`;
  if (replica.condition === "breaker-open") return `${words}: ${replica.last_error ?? "?"}, ${again(replica)}`;
  return replica.last_error === null ? words : `${words}, last handshake failed: ${replica.last_error}`;
}

/** A session at a server that is away is no good, whatever its own state was. */
function describeState(item, state) {
  return item.server_condition === "down" ? `${state}, server down` : state;
}

function moodOf(item, mood) {
  return item.server_condition === "down" ? "bad" : mood;
}

/** Without the scheme: there is little room. */
function shortServer(item) {
  return item.server?.replace(/^\w+:\/\//, "") ?? "–";
}

const servers = new Table(
  $("servers"),
  [
    words("Server", (item) => item.upstream, "wide"),
    { ...words("Condition", describeCondition, "wrap"), mood: (item) => CONDITION_MOODS[item.condition] },
    words("Era", (item) => ({ true: "modern", false: "legacy" })[item.modern] ?? "not asked"),
    words("Modern calls", (item) => item.modern_requests),
    number("Sessions", "sessions"),
  ],
  (item) => item.upstream,
  { index: 0, descending: false },
  "No servers.",
);

const upstream = new Table(
  $("upstream"),
  [
    words("Session", (item) => item.session, "tag"),
    { ...words("State", (item) => describeState(item, item.state), "state"), mood: (item) => moodOf(item, STATE_MOODS[item.state]) },
    words("Server", shortServer),
    words("Client", (item) => item.client_name || "–", "wide"),
    words("Principal", (item) => item.principal, "tag"),
    words("Affinity", (item) => yesNo(item.affinity)),
    words("Version", (item) => item.protocol_version ?? "–"),
    duration("Age", "age_seconds"),
    duration("Idle", "idle_seconds"),
    number("Requests", "requests"),
    number("In flight", "in_flight"),
    number("Parked", "parked"),
    number("Attached", "attached"),
    { title: "Kill", kind: "act", button: killButton },
  ],
  (item) => item.session,
  { index: 7, descending: false },
  "No sessions at the server.",
);

const clients = new Table(
  $("clients"),
  [
    words("Session", (item) => item.client, "tag"),
    {
      ...words("State", (item) => describeState(item, item.attached ? "attached" : "away"), "state"),
      mood: (item) => moodOf(item, item.attached ? "active" : null),
    },
    words("Id", (item) => item.origin),
    words("Principal", (item) => item.principal, "tag"),
    words("Affinity", (item) => yesNo(item.affinity)),
    words("Upstream", (item) => item.upstream ?? "–", "tag"),
    duration("Age", "age_seconds"),
    duration("Idle", "idle_seconds"),
    number("Requests", "requests"),
    number("In flight", "in_flight"),
    number("Parked", "parked"),
  ],
  (item) => item.client,
  { index: 6, descending: false },
  "No client sessions.",
);

// Where the server is a command: a process for each session.
const children = new Table(
  $("children"),
  [
    words("Process", (item) => String(item.pid), "tag"),
    { ...words("State", (item) => item.state, "state"), mood: (item) => CHILD_MOODS[item.state] },
    words("Session", (item) => item.session ?? "–", "tag"),
    words("Principal", (item) => item.principal ?? "–", "tag"),
    duration("Age", "age_seconds"),
    number("Requests", "requests"),
    number("Attached", "attached"),
    number("Strays", "strays"),
    words("Said last on standard error", (item) => item.said.at(-1) ?? "–", "wide said"),
  ],
  (item) => item.pid,
  { index: 4, descending: false },
  "No processes.",
);

let sessions = null;
let processes = null;

function showSessions() {
  if (sessions === null) return;
  const wanted = $("filter").value.trim().toLowerCase();
  const fits = (item) => wanted === ""
    || Object.values(item).flat().some((value) => typeof value === "string" && value.toLowerCase().includes(wanted));
  const tables = [
    [upstream, "upstream", sessions.upstream_sessions, sessions.totals.upstream_sessions],
    [clients, "clients", sessions.client_sessions, sessions.totals.client_sessions],
    [children, "children", processes.children, processes.total],
  ];
  for (const [table, name, all, total] of tables) {
    const shown = all.filter(fits);
    table.show(shown);
    const part = all.length < total ? `the newest ${count.format(all.length)} of ${count.format(total)}` : count.format(total);
    setText($(`${name}-count`), wanted === "" ? part : `${count.format(shown.length)} fit, of ${part}`);
  }
  $("children-card").hidden = processes.total === 0;
}

// -- trouble -------------------------------------------------------------------------------------------

const TROUBLES = {
  "request.failed": "request failed",
  "session.open_failed": "no session opened",
  "session.lost": "session lost",
  "upstream.down": "server away",
  "proxy.bug": "bug of the proxy",
  "config.reload_failed": "configuration refused",
  "identity.tokens_not_checked": "tokens not checked by the server",
  "identity.keys_unavailable": "no keys for tokens",
};

function describeTrouble({ event, level }) {
  return event === "request.failed" && level === "info" ? "caller refused" : TROUBLES[event] ?? event;
}

/** Where it says what to do; null for what needs nobody. */
function makeLink(path, about) {
  const link = make("a", "", "What to do");
  link.href = path.replace(/^\//, "");
  link.setAttribute("aria-label", `What to do: ${about}`);
  return link;
}

let shownTroubles = "";

/** Where sessions are kept, and whether that works. */
function stateText(state) {
  if (state.kept === "memory") {
    return "state in memory";
  }
  const where = state.kept === "store" ? "state in the store" : "state on disk";
  return state.up ? where : `state cannot be written (${state.pending_records + state.pending_streams} records wait)`;
}

function showTroubles(troubles) {
  setText($("no-troubles"), troubles.length > 0 ? "" : "Nothing went wrong.");
  const rows = troubles.map((each) => ({ ...each, ago: span((Date.now() - new Date(each.last).getTime()) / 1000) }));
  // Made anew only when something changed, so that a link keeps the focus.
  const now = JSON.stringify(troubles);
  if (now !== shownTroubles) {
    shownTroubles = now;
    $("troubles").replaceChildren(...rows.map(makeTrouble));
  }
  rows.forEach(({ ago }, index) => setText($("troubles").children[index].querySelector(".ago"), `last ${ago} ago`));
}

function makeTrouble(trouble) {
  const what = describeTrouble(trouble);
  const why = make("span", "why", make("b", "", `${what}: ${trouble.reason}`), " ", make("span", "muted ago"));
  const element = make("li", "", make("span", "times", `${count.format(trouble.count)} ×`), why);
  if (trouble.runbook !== null) element.append(makeLink(trouble.runbook, trouble.reason));
  element.dataset.level = trouble.level;
  return element;
}

// -- tokens --------------------------------------------------------------------------------------------

const IDENTITIES = {
  server: "the server says who they speak for",
  jwks: "checked by the proxy",
  bytes: "each new one is a new caller",
};

function showTokens({ identity, accepted, refused, not_believed: notBelieved, callers, asking, unchecked_issuers: unchecked }) {
  setText($("tokens-mode"), IDENTITIES[identity] ?? identity);
  const seen = accepted + refused + notBelieved;
  const counted = `Since the start: ${count.format(accepted)} accepted, ${count.format(refused)} refused, ${count.format(notBelieved)} not believed.`;
  const known = callers > 0 ? ` ${plural(callers, "caller is", "callers are")} known by what they claim.` : "";
  const asked = asking > 0 ? ` ${count.format(asking)} being asked about.` : "";
  setText($("tokens"), seen === 0 ? `No token has claimed to speak for anybody.${asked}` : counted + known + asked);
  setText($("unchecked"), unchecked.length === 0 ? "" : `Taken with any signature, so not believed: tokens of ${unchecked.join(", ")}`);
}

// -- events --------------------------------------------------------------------------------------------

const ROUTINE = new Set(["client.created", "session.opened", "session.closed"]);

function isRoutine({ event, fields }) {
  return ROUTINE.has(event) || fields.fault === "client";
}

let newestEvent = 0;
let events = [];

/** Newest first. Like the proxy, the page keeps some of each kind, so that a flood of one hides no other. */
function showEvents(fresh) {
  const added = fresh.map((event) => ({ event, element: makeEvent(event) })).reverse();
  if (fresh.length > 0) newestEvent = fresh.at(-1).id;
  $("events").prepend(...added.map(({ element }) => element));
  const seen = new Map();
  events = [...added, ...events].filter(({ event, element }) => {
    const kind = `${event.event} ${event.level}`;
    const number = (seen.get(kind) ?? 0) + 1;
    seen.set(kind, number);
    if (number > EVENTS_OF_EACH_KIND) element.remove();
    return number <= EVENTS_OF_EACH_KIND;
  });
  filterEvents();
}

function makeEvent(event) {
  const time = new Date(event.time);
  const isOld = Date.now() - time.getTime() > 20 * 3600 * 1000;
  const stamp = make("time", "", `${isOld ? `${day.format(time)} ` : ""}${clock.format(time)}`);
  stamp.dateTime = event.time;
  const loud = event.level === "info" ? [] : [make("span", "hidden", ` (${event.level})`)];
  const fields = make("span", "fields");
  for (const [name, value] of Object.entries(event.fields)) {
    if (value === "") continue;
    const text = typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value);
    fields.append(`${name} `, make("span", "", text), "  ");
  }
  const title = make("span", "", make("b", "", event.event, ...loud));
  if (event.runbook !== null && event.level !== "info") title.append(" ", makeLink(event.runbook, event.event));
  const element = make("li", "", stamp, title, fields);
  element.dataset.level = event.level;
  return element;
}

function filterEvents() {
  const problemsOnly = $("problems").checked;
  const withRoutine = $("routine").checked;
  for (const { event, element } of events) {
    element.hidden = (problemsOnly && event.level === "info") || (!withRoutine && isRoutine(event));
  }
  const shown = events.filter(({ element }) => !element.hidden).length;
  const none = problemsOnly ? "No problems among the recent events." : events.length > 0 ? "Only routine." : "Nothing has happened yet.";
  setText($("no-events"), shown > 0 ? "" : none);
}

/** What went wrong last, beside the word on how it does now. */
function showLastProblem() {
  const last = events.find(({ event }) => event.level !== "info")?.event;
  if (last === undefined) {
    setText($("last-problem"), "No problem since the start.");
    return;
  }
  const { reason, error, how, problem, method } = last.fields;
  const why = [reason ?? error ?? how ?? problem, method].filter((word) => word !== undefined && word !== "").join(", ");
  const ago = span((Date.now() - new Date(last.time).getTime()) / 1000);
  const text = `${last.event}${why === "" ? "" : `: ${why}`}`;
  const when = `last problem, ${ago} ago`;
  if ($("last-problem").firstElementChild?.textContent === text) {
    setText($("last-problem").lastElementChild, when);
    return;
  }
  const link = last.runbook === null ? [] : [makeLink(last.runbook, last.event), " "];
  $("last-problem").replaceChildren(make("b", "", text), ...link, make("span", "", when));
}

/** Tell those who listen rather than look; what was there before the page was opened is no news. */
function announce(fresh) {
  const loud = fresh.filter((event) => event.level !== "info");
  if (loud.length > 0) setText($("heard"), loud.length === 1 ? loud[0].event : `${loud.length} problems, the last one ${loud.at(-1).event}`);
}

// -- operations ----------------------------------------------------------------------------------------

const OPERATIONS = {
  pause: () => ({
    title: "Pause the proxy?",
    text: "Nobody is given a session until you resume: requests wait, and fail with 503 when they have waited for "
      + "longer than --acquire-timeout. Requests in flight go on.",
    yes: "Pause",
    send: () => change("POST", "api/v1/pause"),
    done: () => "Paused",
  }),
  resume: () => ({
    title: "Resume?",
    text: "Requests that wait are served again, in their order.",
    yes: "Resume",
    calm: true,
    send: () => change("POST", "api/v1/resume"),
    done: () => "Resumed",
  }),
  reconnect: () => ({
    title: "Reconnect all sessions?",
    text: "Every upstream session is replaced by a new one: at once if nobody holds it, else when it is given back. "
      + "Their state at the server is lost.",
    yes: "Reconnect all",
    send: () => change("POST", "api/v1/reconnect"),
    done: (body) => `${plural(body.sessions, "session")} to be replaced`,
  }),
  drain: () => ({
    title: "Drain and end the proxy?",
    text: "The proxy takes no new connections, finishes the requests in flight, closes its sessions at the server, and "
      + "ends. Nothing on this page can start it again.",
    yes: "Drain and end",
    send: () => change("POST", "api/v1/drain"),
    done: (body) => `Draining; ${plural(body.exchanges, "request")} in flight`,
  }),
  kill: (session) => ({
    title: `Kill session ${session}?`,
    text: "It is closed at once. Requests in flight on it fail, with an unknown outcome, and its state at the server "
      + "is lost. Its clients get a new session with their next request.",
    yes: "Kill session",
    send: () => change("DELETE", `api/v1/sessions/${encodeURIComponent(session)}`),
    done: () => `Killed ${session}`,
  }),
};

let status = null;
let asked = null;

function ask(operation) {
  asked = operation;
  setText($("ask-title"), operation.title);
  setText($("ask-text"), operation.text);
  setText($("ask-problem"), "");
  setText($("ask-yes"), operation.yes);
  $("ask-yes").className = operation.calm ? "primary" : "danger";
  $("ask-yes").disabled = false;
  $("ask").showModal();
}

async function carryOut() {
  const operation = asked;
  if (status?.changes === "token" && token === null && !(await askForToken(""))) return;
  $("ask-yes").disabled = true;
  setText($("ask-problem"), "");
  try {
    let answer = await operation.send();
    while (answer.status === 401) {
      token = null;
      if (!(await askForToken("That is not the token of this proxy."))) return;
      answer = await operation.send();
    }
    if (asked !== operation) return;
    if (answer.ok) {
      $("ask").close();
      say(operation.done(answer.body));
      refresh();
    } else {
      setText($("ask-problem"), answer.body.message ?? answer.body.error ?? `The proxy answered ${answer.status}.`);
    }
  } catch {
    setText($("ask-problem"), "The proxy did not answer. Whether it was done, the events will tell.");
  } finally {
    $("ask-yes").disabled = false;
  }
}

/** Ask for the token, on top of the question; gives whether there is one now. */
function askForToken(problem) {
  setText($("login-problem"), problem);
  $("token").value = "";
  $("login").showModal();
  $("token").focus();
  return new Promise((resolve) => {
    $("login").addEventListener("close", () => resolve(token !== null), { once: true });
  });
}

let saidTimer;

function say(text) {
  setText($("said"), text);
  clearTimeout(saidTimer);
  saidTimer = setTimeout(() => setText($("said"), ""), 6000);
}

function showControls() {
  const isOver = status.phase === "draining";
  const isRefused = status.changes === "refused";
  const pause = $("pause");
  setText(pause, status.paused ? "Resume" : "Pause");
  pause.classList.toggle("primary", status.paused);
  for (const id of ["pause", "reconnect", "drain"]) $(id).disabled = isOver || isRefused;
  document.body.toggleAttribute("data-refused", isRefused);
  $("readonly").hidden = !isRefused;
  setText(
    $("readonly"),
    isRefused
      ? "Read-only: other machines can reach this listener and it has no token. Set MCP_SESSION_PROXY_ADMIN_TOKEN "
        + "when starting the proxy to drain, pause, reconnect or kill from here."
      : "",
  );
}

// -- the loop ------------------------------------------------------------------------------------------

let timer;
let isReading = false;
let lastAnswer = null;
let wasDraining = false;

async function refresh() {
  clearTimeout(timer);
  if (isReading) return;
  isReading = true;
  try {
    const [now, held, started, told] = await Promise.all([
      read("api/v1/status"),
      read(`sessions?limit=${SHOWN_SESSIONS}`),
      read(`api/v1/children?limit=${SHOWN_SESSIONS}`),
      read(`api/v1/events?after=${newestEvent}`),
    ]);
    show(now, held, started, told);
  } catch {
    showSilence();
  } finally {
    isReading = false;
    if (!document.hidden) timer = setTimeout(refresh, EVERY_MILLISECONDS);
  }
}

function show(now, held, started, told) {
  const isNewProcess = status !== null && status.started !== now.started;
  if (isNewProcess) {
    // Its events count from 1 again; what was shown belongs to the one before.
    newestEvent = 0;
    events = [];
    $("events").replaceChildren();
  }
  const isFirst = lastAnswer === null || isNewProcess;
  status = now;
  sessions = held;
  processes = started;
  lastAnswer = new Date();
  wasDraining = now.phase === "draining";
  delete document.body.dataset.stale;
  showVerdict(...judge(now));
  setText($("about"), `${now.version} · up ${span(now.uptime_seconds)} · ${now.sharing} · ${stateText(now.state)}`);
  showControls();
  showNumbers(now);
  showTroubles(now.troubles);
  showTokens(now.tokens);
  showChurn(now.churn);
  servers.show(now.replicas);
  showSessions();
  if (!isNewProcess) {
    showEvents(told.events);
    showLastProblem();
    if (!isFirst) announce(told.events);
  }
}

function showSilence() {
  document.body.dataset.stale = "";
  for (const id of ["pause", "reconnect", "drain"]) $(id).disabled = true;
  const since = lastAnswer === null ? "" : ` since ${clock.format(lastAnswer)}`;
  if (wasDraining) showVerdict("unknown", "Ended", `The proxy was draining, and has not answered${since}.`);
  else showVerdict("bad", "No answer", `The proxy has not answered${since}. What is below is from then.`);
}

// -- start ---------------------------------------------------------------------------------------------

buildPlot();
$("pause").addEventListener("click", () => ask(status.paused ? OPERATIONS.resume() : OPERATIONS.pause()));
$("reconnect").addEventListener("click", () => ask(OPERATIONS.reconnect()));
$("drain").addEventListener("click", () => ask(OPERATIONS.drain()));
$("ask-yes").addEventListener("click", carryOut);
$("ask-no").addEventListener("click", () => $("ask").close());
$("ask").addEventListener("close", () => { asked = null; });
$("login-no").addEventListener("click", () => $("login").close());
$("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim() || null;
  $("token").value = "";
  $("login").close();
});
$("filter").addEventListener("input", showSessions);
$("problems").addEventListener("change", filterEvents);
$("routine").addEventListener("change", filterEvents);
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.closest("input, dialog")) return;
  event.preventDefault();
  $("filter").focus();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
refresh();
