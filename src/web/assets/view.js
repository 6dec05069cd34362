// Draws tiles, boards and alarms. Names come from the network: they become text nodes, never markup.

import { alarmText, change, complaint, count, elapsed, length, number, percent, shortened, t, time, value as plain, visible } from "./text.js";
import {
  AHEAD_MS, alarms, boards, byName, counted, hasUnsetClock, healthAge, inOrder, isForeign, isUnreported, link, mute, now, quality, raisedOn, sensors, share,
  silence, trend,
} from "./state.js";

const SVG = "http://www.w3.org/2000/svg";
/** A slower change counts as steady, in °C/h and %/h. */
const STEADY = { temperature: 0.15, humidity: 0.5 };
/** A board reports its queue every 30 s. An empty one that was reported longer ago than this gets its age. */
const QUEUE_OLD_MS = 90_000;

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

/** That of a sensor that never gave a reading has nothing to select. */
function makeTile(sensor, onSelect) {
  const button = make(sensor.isMute ? "div" : "button", "tile");
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
  const band = document.createElementNS(SVG, "polygon");
  const line = document.createElementNS(SVG, "polyline");
  picture.append(band, line);
  const slope = make("span", "slope");
  const age = make("span", "age");
  const why = make("span", "why");
  button.append(make("span", "row", name, make("span", "chips", alarm, chip)));
  if (!sensor.isMute) button.append(make("span", "row values", main, more), picture, make("span", "row foot", age, slope));
  button.append(why);
  if (!sensor.isMute) button.addEventListener("click", () => onSelect(sensor.key));
  button.dataset.key = sensor.key;
  return { button, chip, alarm, main, more, band, line, slope, age, why, isMute: Boolean(sensor.isMute), last: null };
}

/** The keys of all tiles in their order. To sort thousands at each frame would take its time. */
let ordered = [];
function keysOf(all) {
  if (ordered.length !== all.size || !ordered.every((key) => all.has(key))) ordered = [...all.values()].sort(inOrder).map((sensor) => sensor.key);
  return ordered;
}

/**
 * Draws one tile per series, those whose name or board contains `search` visible; returns the names of the sensors that
 * have just become stale, and how many series of other publishers have no tile for want of room.
 */
export function drawTiles(parent, selected, search, onSelect) {
  const stale = [];
  const all = new Map([...sensors, ...mute().map((sensor) => [sensor.key, sensor])]);
  const keys = keysOf(all);
  const own = [...all.values()].filter((sensor) => !isForeign(sensor));
  const nodes = new Set(own.map((sensor) => sensor.node));
  const isGrouped = own.length >= GROUPED_FROM && own.length >= nodes.size * 1.5;
  const groupOf = (sensor) => (isForeign(sensor) ? `~${sensor.group}` : isGrouped ? sensor.node : null);
  const groups = new Map();
  for (const key of keys) {
    const group = groupOf(all.get(key));
    if (group) groups.set(group, [...(groups.get(group) ?? []), all.get(key)]);
  }
  const drawn = new Set();
  let place = 0, lastGroup = null;
  const put = (element) => {
    if (parent.children[place] !== element) parent.insertBefore(element, parent.children[place] ?? null);
    place += 1;
  };
  for (const [key, tile] of tiles) {
    if (!all.has(key) || tile.isMute !== Boolean(all.get(key).isMute)) {
      tile.button.remove();
      tiles.delete(key);
    }
  }
  const matches = (sensor) =>
    (isForeign(sensor) ? `${sensor.topic} ${sensor.field}`.toLowerCase() : `${sensor.node} ${sensor.sensor}`).includes(search);
  let foreignTiles = 0;
  for (const key of keys) {
    const sensor = all.get(key);
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
    if (!sensor.isMute) mark(tile.button, "aria-pressed", String(key === selected));
    // "Good" beside a raised alarm would be a contradiction.
    const raised = raisedOn(sensor);
    tile.alarm.hidden = raised.length === 0;
    tile.chip.hidden = grade === "foreign" || (raised.length > 0 && grade === "good");
    mark(tile.button, "data-alarm", String(raised.length > 0));
    set(tile.chip, (sensor.isMute && grade === "none" ? t.noneYet : t[grade]) ?? "");
    const silent = grade === "none" || grade === "stale" ? silence(sensor.node, sensor.sensor) : null;
    set(tile.why, silent ? t.noReading(silent.cause, count(silent.failed)) : "");
    const [value, unit] = hasTemperature ? [latest.temperature, "°C"] : [latest?.humidity ?? null, "%"];
    set(tile.main, isForeign(sensor) ? plain(latest?.value) : `${number(value)} ${unit}`);
    // A number with many digits gets smaller ones: it is never cut.
    if (isForeign(sensor)) tile.main.style.setProperty("--length", tile.main.textContent.length);
    set(tile.more, hasTemperature && latest.humidity != null ? `${number(latest.humidity)} %` : "");
    set(tile.age, age === null ? "" : elapsed(age, AHEAD_MS));
    const slope = trend(sensor, hasTemperature ? STEADY.temperature : STEADY.humidity);
    set(tile.slope, slope === null || grade !== "good" ? "" : slope === 0 ? `→ ${t.steady}` : `${slope > 0 ? "↗" : "↘"} ${t.perHour(change(slope), unit)}`);
    const [line, band] = points(sensor.recent, isForeign(sensor) ? 0 : 0.5);
    mark(tile.line, "points", line);
    mark(tile.band, "points", band);
  }
  for (const [group, heading] of headings) {
    if (drawn.has(group)) continue;
    heading.remove();
    headings.delete(group);
  }
  return [stale, Math.max(foreignTiles - FOREIGN_TILES, 0)];
}

/** The points of a sparkline, whose height is at least twice `least`: of its line, and of the band from lowest to highest. */
function points(recent, least) {
  if (recent.length < 2) return ["", ""];
  const low = Math.min(...recent.map(([, , lowest]) => lowest)), high = Math.max(...recent.map(([, , , highest]) => highest));
  const middle = (low + high) / 2, half = Math.max((high - low) / 2, least) || 1;
  const start = recent[0][0], span = recent[recent.length - 1][0] - start || 1;
  const at = (list, which) => list.map((point) => `${(((point[0] - start) / span) * 120).toFixed(1)},${(14 - ((point[which] - middle) / half) * 12).toFixed(1)}`).join(" ");
  const isBand = recent.some(([, , lowest, highest]) => lowest < highest);
  return [at(recent, 1), isBand ? `${at(recent, 3)} ${at([...recent].reverse(), 2)}` : ""];
}

/** A board that has published readings and nothing of itself: a retired one, or another program. */
const SILENT = { status: null, status_at: null, health: null, inputs: {}, outputs: {} };

/**
 * Draws one row per board; `onSwitch` is null when the user may not switch outputs, `onForget` when not remove boards; `odd`
 * has those of another version than most.
 */
export function drawBoards(parent, onSwitch, onForget, odd) {
  const rows = [...boardNames()].sort(byName).map((node) => {
    const board = boards.get(node) ?? SILENT;
    const { health } = board;
    const status = board.status ?? "unknown";
    const since = board.status_at ? length(Math.max((link.lost ? link.lostAt : now()) - board.status_at, 1_000), 0) : null;
    // Readings that come show a publisher that would be back at once.
    const isHeard = !board.status && [...sensors.values()].some((sensor) => sensor.node === node && quality(sensor)[0] === "good");
    const label = isHeard ? t.readingsOnly : { online: t.online, offline: t.gone, unknown: t.unknown }[status](since);
    const shown = link.lost ? "unknown" : status;
    const state = make("td", "", make("span", "dot", link.lost && board.status ? t.lastKnown(label) : label));
    state.firstChild.dataset.state = shown;
    for (const alarm of alarms.values()) {
      if (alarm.raised && alarm.node === node && !alarm.sensor) state.append(" ", chip("raised", alarmText(alarm)));
    }
    if (health?.clock === "unsynced") state.append(" ", chip("unset", t.unset));
    // The board's own words.
    for (const text of health?.complaints ?? []) state.append(make("span", "error", complaint(text)));
    const outbox = make("td", "number", make("span", "queue"));
    outbox.firstChild.dataset.node = node;
    outbox.dataset.l = t.outbox;
    if (health?.outbox_kind === "memory") outbox.append(" ", chip("stale", t.memory));
    const dropped = make("td", "number", health ? count(health.dropped) : "–");
    dropped.dataset.l = t.dropped;
    const errors = make("td", "errors");
    errors.dataset.l = t.errors;
    errors.append(goodReads(node, health?.failures ?? {}));
    const inputs = make("td", "lines");
    inputs.dataset.l = t.inputs;
    for (const [name, on] of byNames(board.inputs)) inputs.append(chip(on && shown === "online" ? "on" : "off", `${name} ${on ? t.on : t.off}`));
    const outputs = make("td", "lines");
    outputs.dataset.l = t.outputs;
    for (const [name, on] of byNames(board.outputs)) {
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
  drawQueues(parent);
  if (focused) [...parent.querySelectorAll("[data-focus]")].find((element) => element.dataset.focus === focused)?.focus();
}

const byNames = (lines) => Object.entries(lines).sort(([one], [other]) => byName(one, other));

/** Draws what waits on each board for its acknowledgement, which is as old as the board's last word. */
export function drawQueues(parent) {
  for (const cell of parent.querySelectorAll(".queue")) {
    const board = boards.get(cell.dataset.node);
    const waiting = board?.health?.outbox;
    const age = waiting === undefined ? null : healthAge(board);
    const isPast = waiting > 0 || board?.status === "offline" || link.lost || age > QUEUE_OLD_MS;
    set(cell, waiting === undefined ? "–" : [count(waiting), isPast && age !== null ? t.asOf(elapsed(age, AHEAD_MS)) : ""].filter(Boolean).join(" "));
  }
}

/** The nodes of which anything is known. */
export const boardNames = () =>
  new Set([...boards.keys(), ...[...sensors.values()].filter((sensor) => !isForeign(sensor)).map((sensor) => sensor.node)]);

/** The share of good reads in the last hour of each sensor of `node`; the causes of failed ones since its start unfold. */
function goodReads(node, failures) {
  const shares = make("span", "shares");
  const known = [...sensors.values()].filter((sensor) => !isForeign(sensor) && sensor.node === node).map((sensor) => sensor.sensor);
  for (const sensor of [...new Set([...known, ...counted(node)])].sort(byName)) {
    const good = share(node, sensor);
    if (good !== null) shares.append(make("span", good === 0 ? "none" : "", make("b", "", sensor), ` ${percent(good)}`));
  }
  if (!shares.childElementCount) shares.append("–");
  const causes = byNames(failures).flatMap(([sensor, causes]) => {
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
  [...new Set([...sensors.values()].filter(hasUnsetClock).map((sensor) => sensor.node))].sort(byName);

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

/** A text whose end may be a command, which stays in one piece. */
function withCommand(text) {
  const [, before, command] = text.match(/^(.*)(humidor user [\w. -]+)$/s) ?? [text, text];
  return make("span", "", before, ...(command ? [make("code", "", command)] : []));
}

/** Draws the clients that were refused, each with what to do. */
export function drawRefusals(parent, clients) {
  parent.replaceChildren(...clients.map((client) => make("li", "raised",
    chip("raised", t.refusedChip), make("b", "", client.node ?? client.client), withCommand(t.refusal(client)),
    make("span", "quiet", t.refusedWhen(client.address, elapsed(now() - client.at, AHEAD_MS), client.count)))));
}

/** Draws what other publishers sent and the log did not keep: texts that were meant as numbers first. */
export function drawLost(parent, lost) {
  parent.replaceChildren(...lost.map(({ topic, field, came, meant, count: times, at }) => make("li", "",
    make("b", "", topic || t.otherTopics), ...(field ? [" · ", make("b", "", field)] : []), " ", make("span", "", came === undefined ? t.leftOut : t.nearNumber(came, meant)), " ",
    make("span", "quiet", [t.occurred(count(times)), at === undefined ? "" : elapsed(now() - at, AHEAD_MS)].filter(Boolean).join(", ")))));
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
