// What happened, newest first, with two filters. Events of an earlier router process stay until the page is closed.

import { clock, make, sign } from "./format.js";

const MAX_KEPT = 1000;
const MAX_SHOWN = 300;
const KINDS = {
  site_appeared: "site",
  site_forgotten: "site",
  site_state: "site",
  record_refused: "record",
  store: "Redis",
};

export class Timeline {
  constructor({ list, empty, site, level }) {
    this.list = list;
    this.empty = empty;
    this.site = site;
    this.level = level;
    this.events = [];
    this.known = new Set();
    this.sites = new Set();
    site.addEventListener("change", () => this.show());
    level.addEventListener("change", () => this.show());
  }

  take(routerId, events) {
    const fresh = events.filter((event) => !this.known.has(`${routerId} ${event.number}`));
    if (fresh.length === 0) return;
    for (const event of fresh) {
      this.known.add(`${routerId} ${event.number}`);
      this.events.push({ ...event, key: `${routerId} ${event.number}` });
      if (event.site_id !== null) this.addSite(event.site_id);
    }
    for (const old of this.events.splice(0, Math.max(0, this.events.length - MAX_KEPT))) this.known.delete(old.key);
    this.show();
  }

  addSite(id) {
    if (this.sites.has(id) || this.sites.size >= 500) return;
    this.sites.add(id);
    const option = make("option", {}, id);
    option.value = id;
    const next = [...this.site.options].slice(1).find((other) => other.value > id);
    this.site.insertBefore(option, next ?? null);
  }

  show() {
    const [site, isShort] = [this.site.value, this.level.checked];
    const wanted = this.events.filter(
      (event) => (site === "" || event.site_id === site) && (!isShort || event.level === "warning" || event.level === "bad"),
    );
    const shown = wanted.slice(-MAX_SHOWN).reverse();
    const items = new Map([...this.list.children].map((node) => [node.dataset.key, node]));
    this.list.replaceChildren(...shown.map((event) => items.get(event.key) ?? item(event)));
    this.empty.hidden = shown.length > 0;
    this.empty.textContent = this.events.length > 0 ? "Nothing that fits the filter." : "Nothing yet.";
  }
}

function item(event) {
  const when = new Date(event.unix_seconds * 1000);
  const time = make("time", { datetime: when.toISOString(), title: when.toISOString() }, clock(event.unix_seconds));
  const text = make("span", { class: "text" }, sign(event.level), event.kind === "record_refused" && event.site_id ? `${event.site_id}: ${event.text}` : event.text);
  const node = make("li", { "data-level": event.level }, time, make("span", { class: "kind" }, KINDS[event.kind] ?? event.kind), text);
  node.dataset.key = event.key;
  return node;
}
