// The page: requests everything once, then follows the events, and requests everything again after a reconnection.

import { Chart, withGaps } from "./chart.js";
import { alarms, applyReading, applyRecent, applySample, applySensors, applySources, boards, inOrder, isForeign, isOutdated, keyOf, link, mute, now, sensors, setClock } from "./state.js";
import { fillFirst } from "./first.js";
import { drawUpstream } from "./upstream.js";
import { drawVersions } from "./versions.js";
import { alarmText, fill, length, mean, number, t, time, value, visible, zone } from "./text.js";
import { boardNames, drawAlarmChanges, drawAlarms, drawBoards, drawLost, drawQueues, drawRefusals, drawTiles, make, switchErrors, unsetClocks } from "./view.js";

const RANGES = { m15: 900_000, h1: 3_600_000, h6: 21_600_000, d1: 86_400_000, d7: 604_800_000, d30: 2_592_000_000, y1: 31_557_600_000 };
const LONGEST_MS = 30 * RANGES.y1;
const SHORTEST_MS = 10_000;
/** The browser reconnects by itself, except after an HTTP error; then the page does. */
const RETRY_MS = 3_000;
/** Shortest time between two requests of a live chart. */
const CHART_EVERY_MS = 2_000;
const ALARMS_EVERY_MS = 5_000;
/** Shortest time between two requests of the alarms. */
const ALARMS_LEAST_MS = 1_000;
const LOST_EVERY_MS = 30_000;
/** Shortest time between two requests of a sparkline. */
const RECENT_EVERY_MS = 300_000;
/** Other publishers send changes, or at intervals of their own: their charts have a gap after so many times the usual one. */
const FOREIGN_PATIENCE = 4;
const FOREIGN_UNKNOWN_MS = 900_000;
/** Longest time in which a board confirms a command. */
const SWITCH_TIMEOUT_MS = 2_000;
/** Longest time for an answer of the broker, whose own limit is 20 s. Beyond it the network is taken for cut. */
const ANSWER_TIMEOUT_MS = 25_000;
/** The same for the alarms, whose answer takes no look into the log. */
const ALARMS_TIMEOUT_MS = 10_000;
/** Changes of alarms that are listed. */
const ALARM_CHANGES = 50;
/** From this number of sensors on, there is a field to search them. */
const SEARCH_FROM = 10;
/** How much of the chart must be below the screen for a choice to scroll to it, px. */
const CHART_VISIBLE_PX = 240;

const $ = (id) => document.getElementById(id);
let about = null, selected = null, stream = null, retry = 0;
/** What the chart shows, and what is said of the one before, which was removed. */
let shown = "", removed = "";
const view = { span: RANGES.m15, to: null };
const charts = {
  temperature: new Chart($("temperature"), "--warm", "°C", zoom),
  humidity: new Chart($("humidity"), "--damp", "%", zoom),
  value: new Chart($("value"), "--accent", "", zoom),
};

/** Addresses are relative: behind a proxy the page may be below a prefix. */
async function get(path, timeout = ANSWER_TIMEOUT_MS) {
  const response = await fetch(`api/v1/${path}`, { headers: { accept: "application/json" }, signal: AbortSignal.timeout(timeout) });
  if (response.status === 401) showRefusal();
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

const post = (path, body) =>
  fetch(`api/v1/${path}`, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
  });

function showLink(state) {
  $("link").dataset.state = state;
  $("link").textContent = t[state];
  const lost = state === "lost";
  if (lost === link.lost) return;
  link.lost = lost;
  link.lostAt = now();
  show(true);
}

/** Shows why the page is not open to this user, and the login form where the broker has users. */
function showRefusal() {
  stream?.close();
  stream = null;
  const denied = about?.user && !about.may.read;
  const [title, text] = denied ? [t.deniedTitle, t.deniedText(about.user)]
    : about?.login === false ? [t.noUsersTitle, t.noUsersText]
    : [t.loginTitle, about?.guests === "local" ? t.loginText : t.loginOnly];
  $("refusedTitle").textContent = title;
  $("refusedText").textContent = text;
  $("page").hidden = true;
  $("refused").hidden = false;
  $("login").hidden = !about?.login;
  $("link").textContent = "";
  $("sum").textContent = "";
}

/** Shows the login form above the page, or hides it. */
function showLogin(shown) {
  $("enter").setAttribute("aria-expanded", String(shown));
  $("refusedTitle").textContent = t.login;
  $("refusedText").textContent = "";
  $("refused").hidden = $("login").hidden = !shown;
  if (shown) $("login").elements.name.focus();
}

async function start() {
  clearTimeout(retry);
  try {
    about = await get("about");
  } catch {
    showLink("lost");
    retry = setTimeout(start, RETRY_MS);
    return;
  }
  setClock(about.now);
  $("version").textContent = t.brokerVersion(about.version, about.revision);
  $("user").textContent = about.user ?? "";
  // A guest who sees the page may be a user with more rights.
  const mayEnter = about.login && about.may.read && !about.user;
  $("account").hidden = !about.user && !mayEnter;
  $("logout").hidden = !about.user;
  $("enter").hidden = !mayEnter;
  if (!about.may.read) return showRefusal();
  showLogin(false);
  fillFirst(about);
  $("page").hidden = false;
  follow();
}

function follow() {
  stream?.close();
  stream = new EventSource("api/v1/events");
  const on = (name, handle) => stream.addEventListener(name, (event) => handle(JSON.parse(event.data)));
  on("hello", (hello) => {
    setClock(hello.now);
    refresh();
  });
  on("refresh", refresh);
  on("readings", (readings) => {
    let isNew = false, isCharted = false;
    for (const reading of readings) {
      isNew = applyReading(reading)[1] || isNew;
      isCharted = isCharted || keyOf(reading) === selected;
    }
    if (isNew) refresh();
    if (isCharted && view.to === null) draw();
    show();
    // A value beyond its limit beside a state of some seconds ago would be a contradiction.
    if ([...alarms.values()].some(isOutdated) && Date.now() - alarmsAt >= ALARMS_LEAST_MS) followAlarms();
  });
  on("samples", (samples) => {
    const isCharted = samples.map(applySample).some((series) => series.key === selected);
    if (isCharted && view.to === null) draw();
    show();
  });
  on("board", (board) => {
    const before = boards.get(board.node)?.status;
    boards.set(board.node, board);
    for (const [output, on] of Object.entries(board.outputs)) {
      if (awaited.get(`${board.node}/${output}`) === on) settle(`${board.node}/${output}`);
    }
    if (before && before !== board.status) announce(board.status === "offline" ? t.boardOffline(board.node) : t.boardOnline(board.node));
    show(true);
  });
  on("gone", ({ node }) => {
    boards.delete(node);
    show(true);
  });
  stream.onerror = () => {
    showLink("lost");
    // CLOSED: the broker answered with an error, or is not there. After a lost connection the browser reconnects.
    if (stream?.readyState === EventSource.CLOSED) retry = setTimeout(start, RETRY_MS);
  };
}

/** Requests everything again: the log has the readings that the page missed while it was disconnected. */
async function refresh() {
  try {
    const [allSensors, allSources, allBoards] = await Promise.all([get("sensors"), get("sources"), get("nodes")]);
    applySensors(allSensors);
    applySources(allSources);
    boards.clear();
    for (const board of allBoards) boards.set(board.node, board);
  } catch {
    return;
  }
  showLink("live");
  if (!sensors.has(selected)) {
    // A chart that changed without a word would be taken for that of the sensor before.
    removed = selected && shown ? t.removed(shown) : "";
    if (removed) announce(removed);
    selected = [...sensors.values()].sort(inOrder)[0]?.key ?? null;
  }
  show(true);
  draw(true);
  recent();
  followAlarms();
  followLost();
}

/** The clients that the broker refuses, for those who may mend it. */
async function followRefusals() {
  const refused = about?.may.forget && stream && !link.lost ? await get("refused", ALARMS_TIMEOUT_MS).catch(() => null) : [];
  if (!refused) return;
  $("refusals").hidden = refused.length === 0;
  drawRefusals($("refusalList"), refused);
}

/** What other publishers sent and the log did not keep. */
async function followLost() {
  if (!stream || link.lost) return;
  const lost = await get("sources/lost", ALARMS_TIMEOUT_MS).catch(() => null);
  if (!lost) return;
  $("lost").hidden = lost.length === 0;
  $("lostSum").textContent = t.lostNumbers(lost.length);
  drawLost($("lostList"), lost);
}

/** How far the copy of the log in PostgreSQL is, where there is one. */
async function followUpstream() {
  if (!about?.upstream || !stream || link.lost) return;
  const status = await get("upstream", ALARMS_TIMEOUT_MS).catch(() => null);
  if (status) drawUpstream($("upstream"), status);
}

let raised = new Set(), alarmsAt = 0;
async function followAlarms() {
  alarmsAt = Date.now();
  followRefusals();
  followUpstream();
  if (!stream || link.lost) return;
  let found;
  try {
    found = await get("alarms", ALARMS_TIMEOUT_MS);
  } catch (error) {
    // A cut network closes no connection, so the event stream does not notice.
    if (stream && error.name === "TimeoutError") {
      stream.close();
      showLink("lost");
      retry = setTimeout(start, RETRY_MS);
    }
    return;
  }
  const latest = (alarm) => sensors.get(`${alarm.node}/${alarm.sensor}`)?.latest;
  for (const alarm of found) if (alarm.raised && !raised.has(alarm.name)) announce(t.alarmRaised(alarm.name, alarmText(alarm, latest(alarm))));
  raised = new Set(found.filter((alarm) => alarm.raised).map((alarm) => alarm.name));
  const changed = found.some((alarm) => alarm.since !== alarms.get(alarm.name)?.since) || found.length !== alarms.size;
  alarms.clear();
  for (const alarm of found) alarms.set(alarm.name, alarm);
  $("alarms").hidden = found.length === 0;
  show(true);
  if (changed) {
    draw(true);
    const changes = await get(`alarms/changes?limit=${ALARM_CHANGES}`).catch(() => null);
    if (changes) drawAlarmChanges($("alarmChanges"), changes);
    $("alarmHistory").hidden = !$("alarmChanges").childElementCount;
  }
}

/** Requests the last hour of each tile that is visible. */
const onScreen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) if (isIntersecting && target.dataset.key) recentOf(sensors.get(target.dataset.key));
}, { rootMargin: "200px" });

function recent() {
  onScreen.disconnect();
  for (const tile of $("tiles").children) onScreen.observe(tile);
}

/** The path of a series over a range. */
const seriesOf = (sensor, range) => (isForeign(sensor)
  ? `sources/series?${new URLSearchParams({ topic: sensor.topic, field: sensor.field, ...range })}`
  : `series?${new URLSearchParams({ node: sensor.node, sensor: sensor.sensor, ...range })}`);

async function recentOf(sensor) {
  if (!sensor?.latest || now() - (sensor.requestedAt ?? 0) < RECENT_EVERY_MS) return;
  sensor.requestedAt = now();
  const to = Math.min(sensor.latest.at, now()) + 1;
  const from = Math.max(to - RANGES.h1, 0);
  try {
    applyRecent(sensor, await get(seriesOf(sensor, { from, to, step: 30_000 })));
    show();
  } catch {
    sensor.requestedAt = 0;
  }
}

/** Has a screen reader read `text` out. */
function announce(text) {
  $("announcement").textContent = visible(text);
}

let boardsDue = true;
let showing = 0;
/** Draws at the next frame, once for any number of calls. */
function show(withBoards = false) {
  boardsDue ||= withBoards;
  showing ||= requestAnimationFrame(() => {
    showing = 0;
    const silent = mute().length;
    const before = $("tiles").childElementCount;
    // How far the copy is was true before.
    if (link.lost) $("upstream").hidden = true;
    const [stale, more] = drawTiles($("tiles"), selected, $("search").value.trim().toLowerCase(), select);
    drawAlarms($("alarmList"), select);
    const unset = unsetClocks();
    $("clocks").hidden = unset.length === 0;
    if (unset.length) $("clocks").textContent = t.clocks(unset.join(", "));
    $("more").hidden = more === 0;
    $("more").textContent = t.more(more);
    $("search").hidden = sensors.size + silent < SEARCH_FROM;
    $("unmatched").hidden = !sensors.size || Boolean($("tiles").querySelector(".tile:not([hidden])"));
    if (stale.length) announce(stale.map(t.sensorStale).join(". "));
    if ($("tiles").childElementCount !== before) recent();
    if (boardsDue) drawBoards($("boards"), about?.may.switch ? switchOutput : null, about?.may.forget ? forget : null, drawVersions($("otherVersions"), boards, about));
    else drawQueues($("boards"));
    boardsDue = false;
    $("empty").hidden = sensors.size + silent > 0;
    $("noBoards").hidden = boardNames().size > 0;
    $("charts").hidden = !selected;
    const own = [...sensors.values()].filter((sensor) => !isForeign(sensor)).length + silent;
    // A page that is not open to its visitor counts nothing.
    $("sum").textContent = $("page").hidden ? "" : link.lost ? t.sumLost(own) : t.sum(own, [...boards.values()].filter((board) => board.status === "online").length);
  });
}

/** The state that each output has been told to take and that its board has not confirmed. */
const awaited = new Map();

async function switchOutput(node, output, on) {
  const key = `${node}/${output}`;
  settle(key);
  awaited.set(key, on);
  const response = await post(`outputs/${encodeURIComponent(node)}/${encodeURIComponent(output)}`, { on }).catch(() => null);
  if (!response?.ok) return switchFailed(key, reason(response));
  // The board publishes the new state of its line. Without it the switch shows the old state again.
  setTimeout(() => {
    if (awaited.get(key) === on) switchFailed(key, t.unconfirmed);
  }, SWITCH_TIMEOUT_MS);
}

function settle(key) {
  awaited.delete(key);
  switchErrors.delete(key);
  $("switchError").textContent = "";
}

function switchFailed(key, reason) {
  awaited.delete(key);
  switchErrors.set(key, t.switchFailed(reason));
  // Beside the switch the table draws it anew at each change, which a screen reader would read each time.
  $("switchError").textContent = visible(`${key}: ${t.switchFailed(reason)}`);
  show(true);
}

async function forget(node) {
  if (!confirm(t.forgetAsk(node))) return;
  const response = await fetch(`api/v1/nodes/${encodeURIComponent(node)}`, { method: "DELETE" }).catch(() => null);
  $("forgetError").textContent = response?.ok ? "" : t.forgetFailed(response?.status === 409 ? t.isOnline : reason(response));
  // It goes by an event, from every open page.
}

/** Why a request failed; `response` is null when there was none. */
function reason(response) {
  if (!response) return t.noAnswer;
  return { 401: t.notAllowed, 403: t.notAllowed, 404: t.noOutput }[response.status] ?? t.refused(response.status);
}

function select(key) {
  selected = key;
  removed = "";
  show();
  draw(true);
  $("charts").hidden = false;
  const { top, bottom } = $("charts").getBoundingClientRect();
  if (top + CHART_VISIBLE_PX <= innerHeight && bottom > CHART_VISIBLE_PX) return;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  $("charts").scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
  $("chartTitle").focus({ preventScroll: true });
}

/** From the chart back to the tile of its sensor. */
function back() {
  const tile = [...$("tiles").children].find((tile) => tile.dataset.key === selected);
  tile?.focus({ preventScroll: true });
  tile?.scrollIntoView({ block: "center" });
}

function zoom(from, to) {
  const span = Math.min(Math.max(to - from, SHORTEST_MS), LONGEST_MS);
  view.span = span;
  view.to = to >= now() - span * 0.02 ? null : to;
  draw(true);
}

let drawing = 0, drawnAt = 0, requested = 0;
/** Requests the chart's range and draws it, at most once in `CHART_EVERY_MS` unless `atOnce`. */
function draw(atOnce = false) {
  clearTimeout(drawing);
  const every = Math.max(CHART_EVERY_MS, view.span / 1_000);
  drawing = setTimeout(drawNow, atOnce ? 0 : Math.max(0, drawnAt + every - Date.now()));
}

async function drawNow() {
  const sensor = sensors.get(selected);
  if (!sensor) return;
  drawnAt = Date.now();
  const own = ++requested;
  const to = Math.round(view.to ?? now() + 1_000), from = Math.max(0, Math.round(to - view.span));
  let series;
  try {
    series = await get(seriesOf(sensor, { from, to }));
  } catch {
    return;
  }
  // A later request has been sent meanwhile.
  if (own !== requested) return;
  const foreign = isForeign(sensor);
  // The export has readings only.
  $("csv").hidden = foreign;
  if (!foreign) $("csv").href = `api/v1/export?${new URLSearchParams({ node: sensor.node, sensor: sensor.sensor, from, to })}`;
  $("charts").hidden = false;
  const names = (foreign ? [sensor.topic, sensor.field] : [sensor.node, sensor.sensor]).filter(Boolean);
  // Each for itself, so that letters from right to left do not change the order.
  $("chartTitle").replaceChildren(...names.flatMap((name, index) => [index ? " · " : "", make("bdi", "", name)]));
  $("span").textContent = `${time(from)} – ${view.to === null ? t.now : time(to)} · ${series.step_ms ? t.step(length(series.step_ms)) : t.single}`;
  const { columns, gaps } = withGaps(series, foreign ? (sensor.interval ?? FOREIGN_UNKNOWN_MS) * FOREIGN_PATIENCE : sensor.interval);
  for (const [name, unit] of [["temperature", " °C"], ["humidity", " %"], ["value", ""]]) {
    const column = columns[name];
    const means = (column?.mean ?? []).filter((value) => value != null);
    $(name).parentElement.hidden = means.length === 0 && name !== (foreign ? "value" : "temperature");
    if (!column) continue;
    const format = unit ? number : value;
    const lowest = Math.min(...column.min.filter((value) => value != null)), highest = Math.max(...column.max.filter((value) => value != null));
    const average = means.reduce((sum, value) => sum + value / means.length, 0);
    $(`${name}Summary`).textContent = means.length
      ? t.summary(t[name], `${format(lowest)}${unit}`, `${unit ? number(average) : mean(average, lowest, highest)}${unit}`, `${format(highest)}${unit}`, gaps.length)
      : t.nothing(t[name]);
    const limits = [...alarms.values()]
      .filter((alarm) => alarm.kind === "threshold" && alarm.quantity === name && alarm.node === sensor.node && alarm.sensor === sensor.sensor)
      .map((alarm) => alarm.limit);
    charts[name].show(columns.x, column, gaps, from / 1000, to / 1000, limits);
  }
  shown = names.join(" · ");
  $("chartNote").textContent = [visible(removed), series.partial ? t.partial : ""].filter(Boolean).join(" ");
  for (const button of $("ranges").children) button.setAttribute("aria-pressed", String(Number(button.dataset.span) === view.span && view.to === null));
}

function setUp() {
  fill();
  $("zone").textContent = t.times(zone);
  $("ranges").setAttribute("aria-label", t.range);
  for (const [name, span] of Object.entries(RANGES)) {
    const button = make("button", "", t.ranges[name]);
    button.dataset.span = String(span);
    button.addEventListener("click", () => {
      Object.assign(view, { span, to: null });
      draw(true);
    });
    $("ranges").append(button);
  }
  const end = () => view.to ?? now();
  const middle = () => end() - view.span / 2;
  $("earlier").addEventListener("click", () => zoom(end() - view.span * 1.5, end() - view.span / 2));
  $("later").addEventListener("click", () => zoom(end() - view.span / 2, Math.min(end() + view.span / 2, now())));
  $("out").addEventListener("click", () => zoom(view.to === null ? end() - view.span * 2 : middle() - view.span, view.to === null ? end() : middle() + view.span));
  $("in").addEventListener("click", () => zoom(view.to === null ? end() - view.span / 2 : middle() - view.span / 4, view.to === null ? end() : middle() + view.span / 4));
  $("login").addEventListener("submit", async (event) => {
    event.preventDefault();
    const response = await post("session", Object.fromEntries(new FormData($("login")))).catch(() => null);
    const known = { 401: t.loginWrong, 429: t.loginBusy }[response?.status];
    $("loginError").textContent = response?.ok ? "" : known ?? t.loginFailed(reason(response));
    $("login").elements.password.value = "";
    if (response?.ok) start();
  });
  $("enter").addEventListener("click", () => showLogin($("refused").hidden));
  $("logout").addEventListener("click", async () => {
    await fetch("api/v1/session", { method: "DELETE" }).catch(() => null);
    start();
  });
  // The ages on display grow.
  setInterval(() => show(), 1_000);
  setInterval(() => show(true), 30_000);
  setInterval(followLost, LOST_EVERY_MS);
  setInterval(followAlarms, ALARMS_EVERY_MS);
  $("search").addEventListener("input", () => show());
  $("search").placeholder = t.search;
  $("back").addEventListener("click", back);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && stream) refresh();
  });
}

setUp();
showLink("wait");
start();
