// Draws tiles, boards and alarms. Names come from the network: they become text nodes, never markup.

import { ago, change, count, number, t } from "./text.js";
import { boards, now, quality, sensors, trend } from "./state.js";

const SVG = "http://www.w3.org/2000/svg";
/** A slower change counts as steady, in °C/h and %/h. */
const STEADY = { temperature: 0.15, humidity: 0.5 };

/** Creates an element with a class and children; a string becomes a text node. */
export function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets an attribute only when it changes: no flicker, and no repeated announcement by a screen reader. */
function mark(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

const tiles = new Map();

function makeTile(sensor, onSelect) {
  const button = make("button", "tile");
  const name = make("span", "name", make("b", "", sensor.sensor), " ", make("span", "quiet", sensor.node));
  const chip = make("span", "chip");
  const main = make("span", "main");
  const more = make("span", "more");
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", "0 0 120 28");
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "polyline");
  picture.append(line);
  const slope = make("span", "slope");
  const age = make("span", "age");
  button.append(make("span", "row", name, chip), make("span", "row values", main, more), picture, make("span", "row foot", age, slope));
  button.addEventListener("click", () => onSelect(sensor.key));
  button.dataset.key = sensor.key;
  return { button, chip, main, more, line, slope, age, last: null };
}

/** Draws one tile per sensor; returns the names of the sensors that have just become stale. */
export function drawTiles(parent, selected, onSelect) {
  const stale = [];
  const keys = [...sensors.keys()].sort();
  for (const [key, tile] of tiles) {
    if (!sensors.has(key)) {
      tile.button.remove();
      tiles.delete(key);
    }
  }
  keys.forEach((key, index) => {
    const sensor = sensors.get(key);
    let tile = tiles.get(key);
    if (!tile) {
      tile = makeTile(sensor, onSelect);
      tiles.set(key, tile);
    }
    if (parent.children[index] !== tile.button) parent.insertBefore(tile.button, parent.children[index] ?? null);
    const [grade, age] = quality(sensor);
    if (tile.last === "good" && (grade === "stale" || grade === "offline")) stale.push(`${sensor.node} ${sensor.sensor}`);
    tile.last = grade;
    const { latest } = sensor;
    const hasTemperature = latest?.temperature != null;
    mark(tile.button, "data-quality", grade);
    mark(tile.button, "aria-pressed", String(key === selected));
    set(tile.chip, t[grade]);
    const [value, unit] = hasTemperature ? [latest.temperature, "°C"] : [latest?.humidity ?? null, "%"];
    set(tile.main, `${number(value)} ${unit}`);
    set(tile.more, hasTemperature && latest.humidity != null ? `${number(latest.humidity)} %` : "");
    set(tile.age, age === null ? "" : Math.abs(age) < 1500 ? t.now : ago(age));
    const slope = trend(sensor);
    const steady = slope !== null && Math.abs(slope) < (hasTemperature ? STEADY.temperature : STEADY.humidity);
    set(tile.slope, slope === null || grade !== "good" ? "" : steady ? `→ ${t.steady}` : `${slope > 0 ? "↗" : "↘"} ${t.perHour(change(slope), unit)}`);
    mark(tile.line, "points", points(sensor.recent));
  });
  return stale;
}

function points(recent) {
  if (recent.length < 2) return "";
  const values = recent.map(([, value]) => value);
  const low = Math.min(...values), high = Math.max(...values);
  const middle = (low + high) / 2, half = Math.max((high - low) / 2, 0.5);
  const start = recent[0][0], span = recent[recent.length - 1][0] - start || 1;
  return recent.map(([at, value]) => `${(((at - start) / span) * 120).toFixed(1)},${(14 - ((value - middle) / half) * 12).toFixed(1)}`).join(" ");
}

/** Draws one row per board; `onSwitch` is null when the user may not switch outputs, `onForget` when not remove boards. */
export function drawBoards(parent, onSwitch, onForget) {
  const rows = [...boards.keys()].sort().map((node) => {
    const board = boards.get(node);
    const { health } = board;
    const status = board.status ?? "unknown";
    const label = { online: t.online, offline: t.gone, unknown: t.unknown }[status];
    const state = make("td", "", make("span", "dot", label));
    state.firstChild.dataset.state = status;
    if (board.status_at) state.append(make("span", "quiet", ` ${ago(now() - board.status_at)}`));
    if (health?.clock === "unsynced") state.append(" ", chip("unset", t.unset));
    // The board's own words.
    for (const complaint of health?.complaints ?? []) state.append(make("span", "error", complaint));
    const outbox = make("td", "number", health ? count(health.outbox) : "–");
    outbox.dataset.l = t.outbox;
    if (health?.outbox_kind === "memory") outbox.append(" ", chip("stale", t.memory));
    const dropped = make("td", "number", health ? count(health.dropped) : "–");
    dropped.dataset.l = t.dropped;
    const errors = make("td", "errors");
    errors.dataset.l = t.errors;
    for (const [sensor, causes] of Object.entries(health?.failures ?? {})) {
      const counts = Object.entries(causes).map(([cause, times]) => `${cause} ${count(times)}`);
      if (counts.length) errors.append(make("span", "error", make("b", "", sensor), ` ${counts.join(", ")}`));
    }
    if (!errors.childElementCount) errors.append("–");
    const inputs = make("td", "lines");
    inputs.dataset.l = t.inputs;
    for (const [name, on] of Object.entries(board.inputs)) inputs.append(chip(on ? "on" : "off", `${name} ${on ? t.on : t.off}`));
    const outputs = make("td", "lines");
    outputs.dataset.l = t.outputs;
    for (const [name, on] of Object.entries(board.outputs)) outputs.append(toggle(node, name, on, status === "online" ? onSwitch : null));
    for (const cell of [inputs, outputs]) if (!cell.childElementCount) cell.append("–");
    const version = make("td", "quiet", [health?.version, health?.revision?.slice(0, 12)].filter(Boolean).join(" · ") || "–");
    version.dataset.l = t.version;
    const name = make("th", "", node);
    name.scope = "row";
    if (onForget && status !== "online") {
      const button = make("button", "plain", t.forget);
      button.setAttribute("aria-label", `${t.forget}: ${node}`);
      button.dataset.output = `${node}/`;
      button.addEventListener("click", () => onForget(node));
      name.append(" ", button);
    }
    return make("tr", "", name, state, outbox, dropped, errors, inputs, outputs, version);
  });
  // The keyboard focus stays on its switch.
  const focused = document.activeElement?.dataset?.output;
  parent.replaceChildren(...rows);
  if (focused) [...parent.querySelectorAll("[data-output]")].find((button) => button.dataset.output === focused)?.focus();
}

/** Draws the alarms, raised ones first. */
export function drawAlarms(parent, alarms) {
  const sorted = [...alarms].sort((one, other) => other.raised - one.raised);
  parent.replaceChildren(...sorted.map((alarm) => {
    const item = make("li", alarm.raised ? "raised" : "", chip(alarm.raised ? "raised" : "on", alarm.raised ? t.raised : t.normal), make("b", "", alarm.name));
    if (alarm.detail) item.append(make("span", "", alarm.detail));
    if (alarm.since) item.append(make("span", "quiet", ago(now() - alarm.since)));
    return item;
  }));
}

function chip(kind, text) {
  const element = make("span", "chip", text);
  element.dataset.kind = kind;
  return element;
}

function toggle(node, output, on, onSwitch) {
  const button = make("button", "switch", make("span", "knob"), output);
  button.setAttribute("role", "switch");
  button.setAttribute("aria-checked", String(on));
  button.setAttribute("aria-label", `${node} ${output}`);
  button.dataset.output = `${node}/${output}`;
  button.disabled = !onSwitch;
  button.addEventListener("click", () => {
    button.setAttribute("aria-busy", "true");
    onSwitch(node, output, !on);
  });
  return button;
}
