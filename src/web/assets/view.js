// Tiles and boards as elements. Names come from the network: they become text, never markup.

import { ago, change, count, number, t } from "./text.js";
import { boards, now, quality, sensors, trend } from "./state.js";

const SVG = "http://www.w3.org/2000/svg";
const STEADY = { temperature: 0.15, humidity: 0.5 };

/** An element with a class and children, texts among them. */
export function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets what differs only, so that nothing flickers and a screen reader is not disturbed. */
function mark(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

const tiles = new Map();

function makeTile(sensor, onPick) {
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
  button.addEventListener("click", () => onPick(sensor.key));
  button.dataset.key = sensor.key;
  return { button, chip, main, more, line, slope, age, last: null };
}

/** Brings the tiles in line with the sensors; returns names that have just become stale. */
export function drawTiles(parent, picked, onPick) {
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
      tile = makeTile(sensor, onPick);
      tiles.set(key, tile);
    }
    if (parent.children[index] !== tile.button) parent.insertBefore(tile.button, parent.children[index] ?? null);
    const [word, age] = quality(sensor);
    if (tile.last === "good" && (word === "stale" || word === "offline")) stale.push(`${sensor.node} ${sensor.sensor}`);
    tile.last = word;
    const { latest } = sensor;
    const both = latest?.temperature != null;
    mark(tile.button, "data-quality", word);
    mark(tile.button, "aria-pressed", String(key === picked));
    set(tile.chip, t[word]);
    const first = both ? [latest.temperature, "°C"] : [latest?.humidity ?? null, "%"];
    set(tile.main, `${number(first[0])} ${first[1]}`);
    set(tile.more, both && latest.humidity != null ? `${number(latest.humidity)} %` : "");
    set(tile.age, age === null ? "" : Math.abs(age) < 1500 ? t.now : ago(age));
    const slope = trend(sensor);
    const calm = slope !== null && Math.abs(slope) < (both ? STEADY.temperature : STEADY.humidity);
    set(tile.slope, slope === null || word !== "good" ? "" : calm ? `→ ${t.steady}` : `${slope > 0 ? "↗" : "↘"} ${change(slope)} ${t.perHour}`);
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

/** Brings the table of boards in line; `onSwitch` is null where the reader may not switch. */
export function drawBoards(parent, onSwitch) {
  const rows = [...boards.keys()].sort().map((node) => {
    const board = boards.get(node);
    const { health } = board;
    const status = board.status ?? "unknown";
    const word = { online: t.online, offline: t.gone, unknown: t.unknown }[status];
    const state = make("td", "", make("span", "dot", word));
    state.firstChild.dataset.state = status;
    if (board.status_at) state.append(make("span", "quiet", ` ${ago(now() - board.status_at)}`));
    if (health?.clock === "unsynced") state.append(" ", chip("unset", t.unset));
    const outbox = make("td", "number", health ? count(health.outbox) : "–");
    outbox.dataset.l = t.outbox;
    if (health?.outbox_kind === "memory") outbox.append(" ", chip("stale", t.memory));
    const dropped = make("td", "number", health ? count(health.dropped) : "–");
    dropped.dataset.l = t.dropped;
    const errors = make("td", "errors");
    errors.dataset.l = t.errors;
    for (const [sensor, causes] of Object.entries(health?.failures ?? {})) {
      const said = Object.entries(causes).map(([cause, times]) => `${cause} ${count(times)}`);
      if (said.length) errors.append(make("span", "error", make("b", "", sensor), ` ${said.join(", ")}`));
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
    return make("tr", "", name, state, outbox, dropped, errors, inputs, outputs, version);
  });
  // The one who is at a switch stays there.
  const held = document.activeElement?.dataset?.output;
  parent.replaceChildren(...rows);
  if (held) [...parent.querySelectorAll("[data-output]")].find((button) => button.dataset.output === held)?.focus();
}

/** The alarms, raised ones first. */
export function drawAlarms(parent, alarms) {
  const sorted = [...alarms].sort((one, other) => other.raised - one.raised);
  parent.replaceChildren(...sorted.map((alarm) => {
    const item = make("li", alarm.raised ? "raised" : "", chip(alarm.raised ? "raised" : "on", alarm.raised ? t.raised : t.good), make("b", "", alarm.name));
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
