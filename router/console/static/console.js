// Heron's console: takes the router's state once a second and shows it. It asks only the port it came from.
// A stream (server-sent events) brings it; while the stream is silent the page asks for it every two seconds,
// and says since when it has had no data.

import { LEVELS, UNKNOWN, clock, count, make, rate, seconds, setLevel, setText, sign, span, watts } from "./format.js";
import { SitesTable } from "./sites.js";
import { Timeline } from "./timeline.js";

const SILENT_MS = 4000;
const ASK_MS = 2000;
const REOPEN_MS = 10000;

const $ = (id) => document.getElementById(id);
const table = new SitesTable($("rows"));
const timeline = new Timeline({ list: $("events"), empty: $("no-events"), site: $("filter-site"), level: $("filter-level") });

// showing
function take(message) {
  const { state, events, trends } = message;
  if (trends) table.takeTrends(trends);
  showHead(state);
  showProblems(state.problems);
  showTiles(state);
  showSystem(state);
  table.take(state);
  const { known, shown } = state.sites;
  setText($("sites-count"), known > shown ? `the worst ${count(shown)} of ${count(known)}` : known ? count(known) : "");
  $("no-sites").hidden = known > 0;
  $("sites-table").hidden = known === 0;
  setText($("trend-title"), `Draw and cap, ${span(table.trendSeconds)}`);
  timeline.take(state.router.router_id ?? "", events);
}

function showHead(state) {
  const serving = state.sites.by_status.serving ?? 0;
  const bad = state.problems.filter((problem) => problem.level === "bad").length;
  const words = {
    good: "All is well",
    info: "All is well",
    warning: state.problems.length === 1 ? "1 warning" : `${state.problems.length} warnings`,
    bad: bad === 1 ? "1 thing is wrong" : `${bad} things are wrong`,
  };
  const { sign: mark } = LEVELS[state.level] ?? LEVELS.info;
  setText($("overall"), `${mark} ${words[state.level] ?? state.level}`);
  setLevel($("overall"), state.level);
  setText($("fleet"), state.router.fleet ?? "");
  document.title = `${mark} Heron: ${serving} of ${state.sites.known} sites serve`;
  setText($("about"), state.router.router_id ? `Router ${state.router.router_id}, version ${state.router.version}.` : "");
}

function showProblems(problems) {
  $("problems-section").hidden = problems.length === 0;
  keep($("problems"), problems, (problem) => {
    const node = make("li", {}, sign(problem.level), make("strong", {}, problem.text), " ", make("span", {}, problem.action));
    setLevel(node, problem.level);
    return node;
  });
}

/** Replace a list's items only where they differ. */
function keep(list, values, build) {
  const keys = values.map((value) => JSON.stringify(value));
  const before = new Map([...list.children].map((node) => [node.dataset.key, node]));
  if (keys.length === before.size && keys.every((key, index) => list.children[index].dataset.key === key)) return;
  list.replaceChildren(
    ...values.map((value, index) => {
      const node = before.get(keys[index]) ?? build(value);
      node.dataset.key = keys[index];
      return node;
    }),
  );
}

const tiles = new Map();

function tile(parent, name, value, note = "", level = "") {
  const key = `${parent.id} ${name}`;
  let kept = tiles.get(key);
  if (kept === undefined) {
    kept = { value: make("dd", { class: "value" }), note: make("dd", { class: "note muted" }), node: make("div") };
    kept.node.append(make("dt", {}, name), kept.value, kept.note);
    parent.append(kept.node);
    tiles.set(key, kept);
  }
  setText(kept.value, value);
  setText(kept.note, note);
  if (level) setLevel(kept.node, level);
  else delete kept.node.dataset.level;
}

function showTiles(state) {
  const { traffic, power, sites } = state;
  const { minute, totals } = traffic;
  const ended = minute.outcomes;
  const parent = $("tiles");
  const window = minute.seconds > 0 && minute.seconds < 55 ? `last ${span(minute.seconds)}` : "last minute";
  const serving = sites.by_status.serving ?? 0;
  tile(parent, "Sites that serve", `${count(serving)} of ${count(sites.known)}`, otherStates(sites.by_status), serving === sites.known && serving > 0 ? "" : "warning");
  tile(parent, "Draw of all sites", watts(power.draw_watts), `of ${watts(power.cap_watts)} cap, ${watts(power.granted_watts)} wind`);
  tile(parent, "Requests", `${rate(traffic.requests_per_second)}/s`, `${count(totals.requests)} since start`);
  tile(parent, "In flight", count(traffic.in_flight), `${count(traffic.held)} wait for room`, traffic.held ? "warning" : "");
  tile(parent, "First token, p50", seconds(traffic.ttft_seconds_p50), `p99 ${seconds(traffic.ttft_seconds_p99)}, ${window}`);
  tile(parent, "Between tokens, p50", seconds(traffic.itl_seconds_p50), `p99 ${seconds(traffic.itl_seconds_p99)}, worst site`);
  tile(parent, "Completed", count(ended.completed ?? null), window);
  ends(parent, "Shed", "shed", ended, totals, "warning");
  ends(parent, "Broken", "broken", ended, totals, "bad");
  ends(parent, "Failed", "failed", ended, totals, "warning");
  ends(parent, "Clients' mistakes", "client_error", ended, totals, "");
  tile(parent, "Moved elsewhere", count(minute.retries + minute.resumed), `${count(minute.resumed)} resumed, ${count(minute.retries)} retried`);
}

function ends(parent, name, key, ended, totals, level) {
  const value = ended[key] ?? null;
  tile(parent, name, count(value), `${count(totals[key] ?? null)} since start`, value ? level : "");
}

function otherStates(byStatus) {
  const others = Object.entries(byStatus).filter(([name]) => name !== "serving");
  return others.map(([name, value]) => `${count(value)} ${name.replaceAll("_", " ")}`).join(", ") || "none in trouble";
}

function showSystem(state) {
  const { router, store, plan, workers } = state;
  const parent = $("system");
  const now = state.unix_seconds;
  const since = span(now - store.since_unix_seconds);
  if (store.is_up === null) tile(parent, "Redis", "not yet heard", "", "warning");
  else tile(parent, "Redis", store.is_up ? "answers" : "does not answer", `for ${since}`, store.is_up ? "" : "bad");
  tile(parent, "Policy", router.policy ?? UNKNOWN, "");
  tile(parent, "Plan", ...planTexts(plan));
  const ready = workers.filter((worker) => worker.is_ready).length;
  if (workers.length === 0) tile(parent, "Router", router.not_ready === null ? "ready" : "not ready", router.not_ready ?? "one process", router.not_ready === null ? "" : "bad");
  else {
    const busiest = workers.map((worker) => worker.connections);
    tile(parent, "Router", `${ready} of ${workers.length} workers`, router.not_ready ?? `connections ${busiest.join(", ")}`, ready === workers.length && router.not_ready === null ? "" : "bad");
  }
  tile(parent, "Up for", span(now - router.started_at_unix_seconds), `${router.version ?? ""}`);
  tile(parent, "API keys", router.auth === "open" ? "not asked for" : router.auth ?? UNKNOWN, router.auth === "open" ? "open to whoever reaches it" : "");
}

function planTexts(plan) {
  if (plan.epoch === null) return ["none", plan.is_planner ? (plan.is_leader ? "this router plans" : "another router plans") : "live signals alone", ""];
  const who = plan.is_leader ? "made here" : `by ${plan.leader}`;
  if (!plan.is_valid) return ["over", `epoch ${plan.epoch}, ${who}`, "warning"];
  return [`${span(plan.age_seconds)} old`, `epoch ${plan.epoch}, ${who}`, ""];
}

// the link to the router
let source = null;
let openedAt = 0;
let heardAt = 0;
let heardOf = null;
let isAsking = false;

function hear(text) {
  take(JSON.parse(text));
  heardAt = performance.now();
  heardOf = Date.now() / 1000;
}

function open() {
  if (source !== null) source.close();
  openedAt = performance.now();
  source = new EventSource("heron/v1/console/stream");
  source.addEventListener("message", (event) => hear(event.data));
}

async function ask() {
  if (isAsking) return;
  isAsking = true;
  try {
    const answer = await fetch("heron/v1/console", { cache: "no-store", signal: AbortSignal.timeout(ASK_MS * 2) });
    if (answer.ok) hear(await answer.text());
  } catch {
    // said by watch(): no data since …
  } finally {
    isAsking = false;
  }
}

function watch() {
  const now = performance.now();
  const silent = now - heardAt;
  const isLost = heardOf === null ? now > SILENT_MS : silent > SILENT_MS;
  document.body.classList.toggle("old", isLost);
  $("lost").hidden = !isLost;
  if (isLost) {
    const since = heardOf === null ? "No data yet." : `No data since ${clock(heardOf)}. What you see is from then.`;
    setText($("lost-text"), `${since} The router's operations port does not answer; asking again every 2 s.`);
    setText($("lost-age"), heardOf === null ? "" : `(${span(silent / 1000)})`);
    setText($("connection"), "no connection");
    setText($("overall"), `${LEVELS.bad.sign} No data`);
    setLevel($("overall"), "bad");
    document.title = "✖ Heron: no data";
  } else {
    setText($("connection"), heardOf === null ? "connecting …" : `live, ${clock(heardOf)}`);
  }
  if (heardOf === null || silent > ASK_MS * 1.5) {
    void ask();
    if (now - openedAt > REOPEN_MS || (source.readyState === EventSource.CLOSED && now - openedAt > ASK_MS)) open();
  }
}

open();
setInterval(watch, 1000);
