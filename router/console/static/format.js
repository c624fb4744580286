// Numbers and texts for people. Unknown is "–", never 0. Texts of records only ever become text nodes.

export const UNKNOWN = "–";

export const LEVELS = {
  good: { sign: "✓", word: "well" },
  info: { sign: "•", word: "information" },
  warning: { sign: "▲", word: "warning" },
  bad: { sign: "✖", word: "bad" },
};

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export function count(value) {
  return isNumber(value) ? Math.round(value).toLocaleString("en-US") : UNKNOWN;
}

export function watts(value) {
  if (!isNumber(value)) return UNKNOWN;
  const size = Math.abs(value);
  if (size < 1000) return `${Math.round(value)} W`;
  if (size < 1e6) return `${(value / 1000).toFixed(1)} kW`;
  return `${(value / 1e6).toFixed(1)} MW`;
}

/** Two of the same unit: "5.2 of 9.0 kW". */
export function wattsOf(part, whole) {
  const [a, b] = [watts(part), watts(whole)];
  const [valueA, unitA] = a.split(" ");
  return unitA && unitA === b.split(" ")[1] ? `${valueA} of ${b}` : `${a} of ${b}`;
}

export function seconds(value) {
  if (!isNumber(value)) return UNKNOWN;
  if (value < 1) return `${(value * 1000).toFixed(value < 0.0995 ? 1 : 0).replace(/\.0$/, "")} ms`;
  return `${value.toFixed(value < 10 ? 1 : 0)} s`;
}

/** How long: "8 s", "3 min", "2 h 5 min", "4 d". */
export function span(value) {
  if (!isNumber(value)) return UNKNOWN;
  const whole = Math.max(0, Math.round(value));
  if (whole < 120) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d`;
}

export function rate(value) {
  if (!isNumber(value)) return UNKNOWN;
  return value >= 100 ? count(value) : value.toFixed(1);
}

export function percent(value) {
  return isNumber(value) ? `${(value * 100).toFixed(value > 0 && value < 0.1 ? 1 : 0)} %` : UNKNOWN;
}

export function clock(unixSeconds) {
  return new Date(unixSeconds * 1000).toLocaleTimeString("en-GB");
}

/** Set a node's text only where it differs, so that a selection or a reader is not disturbed. */
export function setText(node, text) {
  const next = String(text);
  if (node.textContent !== next) node.textContent = next;
}

export function setLevel(node, level) {
  const known = Object.hasOwn(LEVELS, level) ? level : "info";
  if (node.dataset.level !== known) node.dataset.level = known;
}

/** make("td", {class: "number"}, child, "text", …): strings become text, never markup. */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** A sign that says in shape, colour and words how bad it is. */
export function sign(level) {
  const { sign: text, word } = LEVELS[level] ?? LEVELS.info;
  const node = make("span", { class: "sign" }, make("span", { "aria-hidden": "true" }, text));
  node.append(make("span", { class: "hidden" }, `${word}: `));
  setLevel(node, level);
  return node;
}
