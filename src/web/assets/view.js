// Draws tiles, boards and alarms. Names come from the network: they become text nodes, never markup.

import { alarmText, change, complaint, count, elapsed, length, number, percent, shortened, t, time, value as plain, visible } from "./text.js";
import { AHEAD_MS, alarms, boards, counted, hasUnsetClock, isForeign, isUnreported, link, now, quality, raisedOn, sensors, share, trend } from "./state.js";

const SVG = "http://www.w3.org/2000/svg";
/** A slower change counts as steady, in °C/h and %/h. */
const STEADY = { temperature: 0.15, humidity: 0.5 };

/** Creates an element with a class and children; a string becomes a text node, without characters that nobody sees. */
export function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.map((child) => (typeof child === "string" ? visible(child) : child)));
  return element;
}

/** A name that breaks behind its separators first. */
const broken = (name) => shortened(visible(name)).split(/(?<=[/_.:-])/).flatMap((part) => [part, document.createElement("wbr")]);

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets an attribute only when it changes: no flicker, and no repeated announcement by a screen reader. */
function mark(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

const tiles = new Map();
const headings = new Map();
/** From this number of sensors on, tiles stand below the names of their boards, if many of these have more than one. */
const GROUPED_FROM = 10;
/** Tiles of other publishers' series at once: a plant may log thousands. The search finds the others. */
const FOREIGN_TILES = 300;
/** Boards whose causes of failed reads are unfolded. */
const unfolded = new Set();
/** Why the last command to an output failed, by node and output. */
export const switchErrors = new Map();

function makeTile(sensor, onSelect) {
  const button = make("button", "tile");
  const [own, place] = isForeign(sensor) ? [sensor.name, sensor.within] : [sensor.sensor, sensor.node];
  const name = make("span", "name", make("b", "", ...broken(own)), " ", make("span", "quiet", ...broken(place)));
  // A long one is shortened.
  name.title = visible((isForeign(sensor) ? [sensor.topic, sensor.field] : [sensor.node, sensor.sensor]).filter(Boolean).join(" "));
  const chip = make("span", "chip");
  const alarm = make("span", "chip");
  alarm.dataset.kind = "raised";
  alarm.textContent = t.alarm;
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
  button.append(make("span", "row", name, make("span", "chips", alarm, chip)), make("span", "row values", main, more), picture, make("span", "row foot", age, slope));
  button.addEventListener("click", () => onSelect(sensor.key));
  button.dataset.key = sensor.key;
  return { button, chip, alarm, main, more, line, slope, age, last: null };
}

/**
 * Draws one tile per series, those whose name or board contains `search` visible; returns the names of the sensors that
 * have just become stale, and how many series of other publishers have no tile for want of room.
 */
export function drawTiles(parent, selected, search, onSelect) {
  const stale = [];
  const keys = [...sensors.keys()].sort();
  const own = [...sensors.values()].filter((sensor) => !isForeign(sensor));
  const nodes = new Set(own.map((sensor) => sensor.node));
  const isGrouped = own.length >= GROUPED_FROM && own.length >= nodes.size * 1.5;
  const groupOf = (sensor) => (isForeign(sensor) ? `~${sensor.group}` : isGrouped ? sensor.node : null);
  const groups = new Map();
  for (const key of keys) {
    const group = groupOf(sensors.get(key));
    if (group) groups.set(group, [...(groups.get(group) ?? []), sensors.get(key)]);
  }
  const drawn = new Set();
  let place = 0, lastGroup = null;
  const put = (element) => {
    if (parent.children[place] !== element) parent.insertBefore(element, parent.children[place] ?? null);
    place += 1;
  };
  for (const [key, tile] of tiles) {
    if (!sensors.has(key)) {
      tile.button.remove();
      tiles.delete(key);
    }
  }
  const matches = (sensor) =>
    (isForeign(sensor) ? `${sensor.topic} ${sensor.field}`.toLowerCase() : `${sensor.node} ${sensor.sensor}`).includes(search);
  let foreignTiles = 0;
  for (const key of keys) {
    const sensor = sensors.get(key);
    if (isForeign(sensor) && (!matches(sensor) || ++foreignTiles > FOREIGN_TILES)) {
      tiles.get(key)?.button.remove();
      tiles.delete(key);
      continue;
    }
    const group = groupOf(sensor);
    if (group && group !== lastGroup) {
      lastGroup = group;
      const heading = headings.get(group) ?? make("h3", "", ...(isForeign(sensor) ? [make("span", "quiet", t.topic), " ", sensor.group] : [sensor.node]));
      headings.set(group, heading);
      drawn.add(group);
      put(heading);
      heading.hidden = !groups.get(group).some(matches);
    }
    let tile = tiles.get(key);
    if (!tile) {
      tile = makeTile(sensor, onSelect);
      tiles.set(key, tile);
    }
    put(tile.button);
    tile.button.hidden = !matches(sensor);
    const [grade, age] = quality(sensor);
    if (tile.last === "good" && (grade === "stale" || grade === "offline")) stale.push(`${sensor.node} ${sensor.sensor}`);
    tile.last = grade;
    const { latest } = sensor;
    const hasTemperature = latest?.temperature != null;
    mark(tile.button, "data-quality", grade);
    mark(tile.button, "aria-pressed", String(key === selected));
    // "Good" beside a raised alarm would be a contradiction.
    const raised = raisedOn(sensor);
    tile.alarm.hidden = raised.length === 0;
    tile.chip.hidden = grade === "foreign" || (raised.length > 0 && grade === "good");
    mark(tile.button, "data-alarm", String(raised.length > 0));
    set(tile.chip, t[grade] ?? "");
    const [value, unit] = hasTemperature ? [latest.temperature, "°C"] : [latest?.humidity ?? null, "%"];
    set(tile.main, isForeign(sensor) ? plain(latest?.value) : `${number(value)} ${unit}`);
    // A number with many digits gets smaller ones: it is never cut.
    if (isForeign(sensor)) tile.main.style.setProperty("--length", tile.main.textContent.length);
    set(tile.more, hasTemperature && latest.humidity != null ? `${number(latest.humidity)} %` : "");
    set(tile.age, age === null ? "" : elapsed(age, AHEAD_MS));
    const slope = trend(sensor, hasTemperature ? STEADY.temperature : STEADY.humidity);
    set(tile.slope, slope === null || grade !== "good" ? "" : slope === 0 ? `→ ${t.steady}` : `${slope > 0 ? "↗" : "↘"} ${t.perHour(change(slope), unit)}`);
    mark(tile.line, "points", points(sensor.recent, isForeign(sensor) ? 0 : 0.5));
  }
  for (const [group, heading] of headings) {
    if (drawn.has(group)) continue;
    heading.remove();
    headings.delete(group);
  }
  return [stale, Math.max(foreignTiles - FOREIGN_TILES, 0)];
}

/** The points of a sparkline, whose height is at least twice `least`. */
function points(recent, least) {
  if (recent.length < 2) return "";
  const values = recent.map(([, value]) => value);
  const low = Math.min(...values), high = Math.max(...values);
  const middle = (low + high) / 2, half = Math.max((high - low) / 2, least) || 1;
  const start = recent[0][0], span = recent[recent.length - 1][0] - start || 1;
  return recent.map(([at, value]) => `${(((at - start) / span) * 120).toFixed(1)},${(14 - ((value - middle) / half) * 12).toFixed(1)}`).join(" ");
}

/** A board that has published readings and nothing of itself: a retired one, or another program. */
const SILENT = { status: null, status_at: null, health: null, inputs: {}, outputs: {} };

/**
 * Draws one row per board; `onSwitch` is null when the user may not switch outputs, `onForget` when not remove boards; `odd`
 * has those of another version than most.
 */
export function drawBoards(parent, onSwitch, onForget, odd) {
  const rows = [...boardNames()].sort().map((node) => {
    const board = boards.get(node) ?? SILENT;
    const { health } = board;
    const status = board.status ?? "unknown";
    const since = board.status_at ? length(Math.max((link.lost ? link.lostAt : now()) - board.status_at, 1_000), 0) : null;
    const label = { online: t.online, offline: t.gone, unknown: t.unknown }[status](since);
    const shown = link.lost ? "unknown" : status;
    const state = make("td", "", make("span", "dot", link.lost ? t.lastKnown(label) : label));
    state.firstChild.dataset.state = shown;
    for (const alarm of alarms.values()) {
      if (alarm.raised && alarm.node === node && !alarm.sensor) state.append(" ", chip("raised", alarmText(alarm)));
    }
    if (health?.clock === "unsynced") state.append(" ", chip("unset", t.unset));
    // The board's own words.
    for (const text of health?.complaints ?? []) state.append(make("span", "error", complaint(text)));
    const outbox = make("td", "number", health ? count(health.outbox) : "–");
    outbox.dataset.l = t.outbox;
    if (health?.outbox_kind === "memory") outbox.append(" ", chip("stale", t.memory));
    const dropped = make("td", "number", health ? count(health.dropped) : "–");
    dropped.dataset.l = t.dropped;
    const errors = make("td", "errors");
    errors.dataset.l = t.errors;
    errors.append(goodReads(node, health?.failures ?? {}));
    const inputs = make("td", "lines");
    inputs.dataset.l = t.inputs;
    for (const [name, on] of Object.entries(board.inputs)) inputs.append(chip(on && shown === "online" ? "on" : "off", `${name} ${on ? t.on : t.off}`));
    const outputs = make("td", "lines");
    outputs.dataset.l = t.outputs;
    for (const [name, on] of Object.entries(board.outputs)) {
      outputs.append(toggle(node, name, on, status === "online" && !link.lost ? onSwitch : null));
      const error = switchErrors.get(`${node}/${name}`);
      if (error) outputs.append(make("span", "error failed", error));
    }
    for (const cell of [inputs, outputs]) if (!cell.childElementCount) cell.append("–");
    const version = make("td", "quiet", [health?.version, health?.revision?.slice(0, 12)].filter(Boolean).join(" · ") || "–");
    version.dataset.l = t.version;
    if (odd.has(node)) version.append(" ", chip("stale", t.otherVersion));
    const name = make("th", "", node);
    name.scope = "row";
    // Readings that come show a publisher that would be back at once.
    const isHeard = !board.status && [...sensors.values()].some((sensor) => sensor.node === node && quality(sensor)[0] === "good");
    if (onForget && status !== "online" && !isHeard) {
      const button = make("button", "plain", t.forget);
      button.setAttribute("aria-label", `${t.forget}: ${node}`);
      button.dataset.output = `${node}/`;
      button.disabled = link.lost;
      button.addEventListener("click", () => onForget(node));
      name.append(" ", button);
    }
    return make("tr", "", name, state, outbox, dropped, errors, inputs, outputs, version);
  });
  // The keyboard focus stays on its switch.
  const focused = document.activeElement?.dataset?.focus;
  parent.replaceChildren(...rows);
  if (focused) [...parent.querySelectorAll("[data-focus]")].find((element) => element.dataset.focus === focused)?.focus();
}

/** The nodes of which anything is known. */
export const boardNames = () =>
  new Set([...boards.keys(), ...[...sensors.values()].filter((sensor) => !isForeign(sensor)).map((sensor) => sensor.node)]);

/** The share of good reads in the last hour of each sensor of `node`; the causes of failed ones since its start unfold. */
function goodReads(node, failures) {
  const shares = make("span", "shares");
  const known = [...sensors.values()].filter((sensor) => !isForeign(sensor) && sensor.node === node).map((sensor) => sensor.sensor);
  for (const sensor of [...new Set([...known, ...counted(node)])].sort()) {
    const good = share(node, sensor);
    if (good !== null) shares.append(make("span", good === 0 ? "none" : "", make("b", "", sensor), ` ${percent(good)}`));
  }
  if (!shares.childElementCount) shares.append("–");
  const causes = Object.entries(failures).flatMap(([sensor, causes]) => {
    const counts = Object.entries(causes).map(([cause, times]) => `${t.causes[cause] ?? cause} ${count(times)}`);
    return counts.length ? [make("span", "error", make("b", "", sensor), ` ${counts.join(", ")}`)] : [];
  });
  if (!causes.length) return shares;
  const summary = make("summary", "", shares);
  summary.dataset.focus = `${node} reads`;
  const details = make("details", "", summary, make("span", "quiet", t.failed), ...causes);
  details.open = unfolded.has(node);
  details.addEventListener("toggle", () => (details.open ? unfolded.add(node) : unfolded.delete(node)));
  return details;
}

/** The boards whose readings have times of a clock that is not set. */
export const unsetClocks = () =>
  [...new Set([...sensors.values()].filter(hasUnsetClock).map((sensor) => sensor.node))].sort();

/** Draws the alarms, raised ones first; each leads to the chart of its sensor. */
export function drawAlarms(parent, onSelect) {
  const sorted = [...alarms.values()].sort((one, other) => other.raised - one.raised);
  const focused = document.activeElement?.dataset?.alarm;
  parent.replaceChildren(...sorted.map((alarm) => {
    const sensor = alarm.sensor && sensors.get(`${alarm.node}/${alarm.sensor}`);
    const unreported = !alarm.raised && isUnreported(alarm);
    // A board may publish the one quantity and not the other.
    const lacks = !alarm.raised && alarm.kind === "threshold" && sensor?.latest && sensor.latest[alarm.quantity] == null;
    const state = alarm.raised ? t.raised : unreported ? t.unreported : lacks ? t.none : t.normal;
    const kind = alarm.raised ? "raised" : unreported || lacks ? "off" : "on";
    const item = make("li", alarm.raised ? "raised" : "",
      link.lost ? chip("", t.lastKnown(state)) : chip(kind, state), make("b", "", alarm.name));
    const text = alarmText(alarm, sensor?.latest);
    if (sensor) {
      const button = make("button", "plain", text);
      button.dataset.alarm = alarm.name;
      button.addEventListener("click", () => onSelect(sensor.key));
      item.append(button);
    } else {
      item.append(make("span", "", text));
    }
    if (alarm.since) item.append(make("span", "quiet", elapsed(now() - alarm.since, AHEAD_MS)));
    return item;
  }));
  if (focused) [...parent.querySelectorAll("button")].find((button) => button.dataset.alarm === focused)?.focus();
}

/** Draws the clients that were refused, each with what to do. */
export function drawRefusals(parent, clients) {
  parent.replaceChildren(...clients.map((client) => make("li", "raised",
    chip("raised", t.refusedChip), make("b", "", client.node ?? client.client), make("span", "", t.refusal(client)),
    make("span", "quiet", t.refusedWhen(client.address, elapsed(now() - client.at, AHEAD_MS), client.count)))));
}

/** Draws the latest changes of alarms. */
export function drawAlarmChanges(parent, changes) {
  parent.replaceChildren(...changes.map((change) =>
    make("li", "", make("span", "quiet", time(change.at)), " ", make("b", "", change.name), " ", change.raised ? t.raised : t.cleared)));
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
  button.dataset.focus = `${node}/${output}`;
  button.disabled = !onSwitch;
  button.addEventListener("click", () => {
    button.setAttribute("aria-busy", "true");
    onSwitch(node, output, !on);
  });
  return button;
}
