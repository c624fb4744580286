// The table of sites. Rows are kept and changed in place: focus, selection and opened details stay.

import { UNKNOWN, count, make, percent, seconds, setLevel, setText, sign, span, watts, wattsOf } from "./format.js";

const TREND_POINTS = 300;
const TREND_STEP_SECONDS = 2;
const LEAST_POINTS = 60; // a young trend fills no more than its part of two minutes
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 150;
const HEIGHT = 30;

const STATE_WORDS = {
  serving: "serving",
  draining: "draining",
  dark: "dark",
  faulted: "faulted",
  silent: "no report",
  late: "late report",
  not_allowed: "not allowed",
  cordoned: "cordoned",
  breaker_open: "breaker open",
  probing: "being probed",
  no_engine: "no engine ready",
  no_watts: "no watts left",
  full: "full",
};

export class SitesTable {
  constructor(body) {
    this.body = body;
    this.rows = new Map();
    this.trends = new Map();
  }

  /** Draw and cap of the last minutes, as the server kept them. */
  takeTrends(trends) {
    for (const [site, trend] of Object.entries(trends)) {
      this.trends.set(site, { draw: trend.draw_watts, cap: trend.cap_watts, at: 0 });
    }
  }

  take(state) {
    const seen = new Set();
    let before = null;
    for (const site of state.rows) {
      seen.add(site.site_id);
      let row = this.rows.get(site.site_id);
      if (row === undefined) {
        row = new Row(site.site_id);
        this.rows.set(site.site_id, row);
      }
      const place = before === null ? this.body.firstChild : before.nextSibling;
      if (row.main !== place) this.body.insertBefore(row.main, place);
      if (row.main.nextSibling !== row.details) row.main.after(row.details);
      before = row.details;
      row.take(site, state, this.trend(site, state.unix_seconds));
    }
    for (const [id, row] of this.rows) {
      if (seen.has(id)) continue;
      row.main.remove();
      row.details.remove();
      this.rows.delete(id);
      this.trends.delete(id);
    }
  }

  trend(site, now) {
    let trend = this.trends.get(site.site_id);
    if (trend === undefined) {
      trend = { draw: [], cap: [], at: 0 };
      this.trends.set(site.site_id, trend);
    }
    if (trend.at === 0 && trend.draw.length > 0) {
      trend.at = now;
    } else if (now - trend.at >= TREND_STEP_SECONDS - 0.5) {
      const isKnown = site.status.name !== "silent";
      trend.at = now;
      trend.draw.push(isKnown ? site.draw_watts : null);
      trend.cap.push(isKnown ? site.cap_watts : null);
      trend.draw.splice(0, trend.draw.length - TREND_POINTS);
      trend.cap.splice(0, trend.cap.length - TREND_POINTS);
      trend.isNew = true;
    }
    return trend;
  }

  /** How far back the longest trend goes. */
  get trendSeconds() {
    let most = LEAST_POINTS;
    for (const trend of this.trends.values()) most = Math.max(most, trend.draw.length);
    return most * TREND_STEP_SECONDS;
  }
}

class Row {
  constructor(id) {
    this.main = make("tr", { role: "row", class: "site" });
    this.button = make("button", { type: "button", "aria-expanded": "false" }, make("span", { class: "name" }, id));
    this.place = make("span", { class: "muted small" });
    const name = make("th", { role: "rowheader", scope: "row" }, this.button, this.place);
    this.main.append(name);
    this.cells = {};
    for (const [key, label, kind] of [
      ["state", "State", ""],
      ["power", "Draw under cap", ""],
      ["wind", "Wind", "number"],
      ["headroom", "Headroom", "number"],
      ["flight", "In flight", "number"],
      ["share", "Requests, last minute", ""],
      ["report", "Report", "number"],
      ["trend", "Draw and cap", ""],
    ]) {
      this.cells[key] = make("td", { role: "cell", "data-label": label, class: `${key} ${kind}`.trim() });
      this.main.append(this.cells[key]);
    }
    this.state = make("span", { class: "state" });
    this.since = make("span", { class: "muted small" });
    this.why = make("span", { class: "why" });
    this.cells.state.append(this.state, this.since, this.why);
    this.powerText = make("span");
    this.gauge = new Gauge();
    this.cells.power.append(this.powerText, this.gauge.node);
    this.shareText = make("span");
    this.shareFill = make("span", { class: "fill" });
    this.cells.share.append(this.shareText, make("span", { class: "share-track", "aria-hidden": "true" }, this.shareFill));
    this.lines = {};
    for (const key of ["wind", "headroom", "flight", "report"]) {
      this.lines[key] = [make("span"), make("span", { class: "muted small" })];
      this.cells[key].append(...this.lines[key]);
    }
    this.trend = new Trend();
    this.cells.trend.append(this.trend.node);

    this.panel = make("td", { role: "cell", colspan: "9" });
    this.details = make("tr", { role: "row", class: "details" }, this.panel);
    this.details.hidden = true;
    this.button.addEventListener("click", () => {
      this.details.hidden = !this.details.hidden;
      this.button.setAttribute("aria-expanded", String(!this.details.hidden));
      if (!this.details.hidden && this.site) this.fillDetails(this.site);
    });
  }

  take(site, state, trend) {
    this.site = site;
    const status = site.status;
    setLevel(this.main, status.level);
    setText(this.place, [site.region, site.gpus].filter(Boolean).join(" · "));
    const word = STATE_WORDS[status.name] ?? status.name;
    if (this.word !== `${status.level} ${word}`) {
      this.word = `${status.level} ${word}`;
      this.state.replaceChildren(sign(status.level), make("strong", {}, word));
      setLevel(this.state, status.level);
    }
    setText(this.since, `for ${span(state.unix_seconds - status.since_unix_seconds)}`);
    setText(this.why, status.why);
    setText(this.powerText, wattsOf(site.draw_watts, site.cap_watts));
    this.gauge.take(site);
    this.line("wind", watts(site.wind?.granted_power_watts ?? null), windNote(site.wind));
    const room = sum(site.models.map((model) => model.headroom_requests));
    this.line("headroom", watts(site.headroom_watts), room === null ? "" : `${count(room)} requests`);
    const waiting = sum(site.models.map((model) => model.waiting_requests));
    this.line("flight", count(site.in_flight), waiting ? `${count(waiting)} wait there` : "");
    const share = site.share_ratio;
    setText(this.shareText, share === null ? count(site.requests_last_minute) : `${percent(share)} (${count(site.requests_last_minute)})`);
    this.shareFill.style.width = `${Math.round((share ?? 0) * 100)}%`;
    this.line("report", `${site.age_seconds < 10 ? site.age_seconds.toFixed(1) : Math.round(site.age_seconds)} s ago`, "");
    if (trend.isNew || !this.trend.isDrawn) this.trend.take(trend, site);
    trend.isNew = false;
    if (!this.details.hidden) this.fillDetails(site);
  }

  line(key, text, note) {
    setText(this.lines[key][0], text);
    setText(this.lines[key][1], note);
  }

  fillDetails(site) {
    const facts = [
      ["Models", site.models.map((model) => model.model).join(", ") || UNKNOWN],
      ["Farm", site.farm_id ?? UNKNOWN],
      ["Farm's wind", site.wind === null ? "no reading" : `${wattsOf(site.wind.available_power_watts, site.wind.nameplate_capacity_watts)}, ${site.wind.quality}, from ${site.wind.source}`],
      ["Idle / most", `${watts(site.idle_watts)} with engines stopped / ${watts(site.max_site_watts)}`],
      ["Draw is", site.draw_source ?? UNKNOWN],
      ["Address", site.ingress_url ?? UNKNOWN],
      ["Breaker", site.breaker.replace("_", " ")],
      ["Sent since start", `${count(site.requests)} (${pairs(site.results)})`],
      ["Pushbacks", pairs(site.pushbacks)],
      ["Clock", `off by ${seconds(Math.abs(site.clock_skew_seconds))}`],
    ];
    const list = make("dl", { class: "facts" });
    for (const [name, value] of facts) list.append(make("div", {}, make("dt", {}, name), make("dd", {}, value)));
    const children = [list];
    if (site.models.length > 0) children.push(modelsTable(site.models));
    this.panel.replaceChildren(...children);
  }
}

function modelsTable(models) {
  const head = make("tr");
  for (const name of ["Model", "Engines", "Running", "Waiting", "Room", "KV cache", "TTFT p50 / p99", "ITL p50 / p99", "J per token"]) {
    head.append(make("th", { scope: "col" }, name));
  }
  const body = make("tbody");
  for (const model of models) {
    const row = make("tr", {}, make("th", { scope: "row" }, model.model));
    const energy = model.joules_per_output_token;
    for (const text of [
      Object.keys(model.instances).length > 0 ? pairs(model.instances) : `${count(model.ready_instances)} ready`,
      count(model.running_requests),
      count(model.waiting_requests),
      `${count(model.headroom_requests)} of ${count(model.capacity_requests)}`,
      percent(model.kv_cache_usage_ratio),
      `${seconds(model.ttft_seconds_p50)} / ${seconds(model.ttft_seconds_p99)}`,
      `${seconds(model.itl_seconds_p50)} / ${seconds(model.itl_seconds_p99)}`,
      energy === null ? UNKNOWN : energy.toFixed(energy < 10 ? 2 : 0),
    ]) row.append(make("td", {}, text));
    body.append(row);
  }
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Models of this site" },
    make("table", { class: "models" }, make("thead", {}, head), body));
}

/** Draw (full), what is left under the cap (light), and what is above it (striped), of the most a site may draw. */
class Gauge {
  constructor() {
    this.cap = make("span", { class: "cap" });
    this.draw = make("span", { class: "draw" });
    this.over = make("span", { class: "over" });
    this.node = make("span", { class: "gauge", "aria-hidden": "true" }, this.cap, this.draw, this.over);
  }

  take(site) {
    const cap = site.cap_watts ?? 0;
    const draw = site.draw_watts ?? 0;
    const most = Math.max(site.max_site_watts ?? 0, cap, draw) || 1;
    const part = (value) => `${((100 * Math.max(0, value)) / most).toFixed(1)}%`;
    this.cap.style.width = part(cap);
    this.draw.style.width = part(site.cap_watts === null ? draw : Math.min(draw, cap));
    this.over.style.left = part(cap);
    this.over.style.width = part(site.cap_watts === null ? 0 : draw - cap);
  }
}

/** The last minutes: draw as an area, cap as a line. Gaps are times without a report. */
class Trend {
  constructor() {
    this.node = document.createElementNS(SVG, "svg");
    this.area = document.createElementNS(SVG, "path");
    this.cap = document.createElementNS(SVG, "path");
    this.area.setAttribute("class", "trend-draw");
    this.cap.setAttribute("class", "trend-cap");
    this.node.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.node.setAttribute("preserveAspectRatio", "none");
    this.node.setAttribute("class", "trend-chart");
    this.node.setAttribute("role", "img");
    this.node.append(this.area, this.cap);
    this.isDrawn = false;
  }

  take(trend, site) {
    this.isDrawn = true;
    const points = Math.max(trend.draw.length, LEAST_POINTS);
    const most = Math.max(1, site.max_site_watts ?? 0, ...trend.draw.map(Number), ...trend.cap.map(Number));
    const first = points - trend.draw.length;
    const x = (index) => (((first + index) * WIDTH) / (points - 1)).toFixed(1);
    const y = (value) => (HEIGHT - 1 - (value / most) * (HEIGHT - 2)).toFixed(1);
    this.area.setAttribute("d", runs(trend.draw).map((run) => areaPath(run, x, y)).join(""));
    this.cap.setAttribute("d", runs(trend.cap).map((run) => stepPath(run, x, y)).join(""));
    const known = trend.cap.filter((value) => value !== null);
    this.node.setAttribute("aria-label", known.length === 0 ? "no figures yet"
      : `cap between ${watts(Math.min(...known))} and ${watts(Math.max(...known))}`);
  }
}

/** Stretches of known values, as [index, value] pairs. */
function runs(values) {
  const found = [];
  let run = null;
  values.forEach((value, index) => {
    if (value === null || value === undefined) {
      run = null;
      return;
    }
    if (run === null) found.push((run = []));
    run.push([index, value]);
  });
  return found;
}

function areaPath(run, x, y) {
  const line = run.map(([index, value]) => `L${x(index)} ${y(value)}`).join("");
  return `M${x(run[0][0])} ${HEIGHT}${line}L${x(run[run.length - 1][0])} ${HEIGHT}Z`;
}

function stepPath(run, x, y) {
  return run.map(([index, value], place) => (place === 0 ? `M${x(index)} ${y(value)}` : `H${x(index)}V${y(value)}`)).join("");
}

function windNote(wind) {
  if (wind === null) return "no reading";
  return wind.quality === "good" ? `farm ${watts(wind.available_power_watts)}` : `reading is ${wind.quality}`;
}

function pairs(counts) {
  const entries = Object.entries(counts).filter(([, value]) => value > 0);
  return entries.map(([name, value]) => `${count(value)} ${name}`).join(", ") || "none";
}

function sum(values) {
  const known = values.filter((value) => typeof value === "number");
  return known.length === 0 ? null : known.reduce((total, value) => total + value, 0);
}
