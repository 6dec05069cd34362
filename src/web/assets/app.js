// The page: asks once, listens from then on, and asks again whenever the connection comes back.

import { Chart, withGaps } from "./chart.js";
import { boards, keyOf, now, sensors, setClock, takeReading, takeRecent, takeSensors } from "./state.js";
import { fill, length, number, t, time, zone } from "./text.js";
import { drawAlarms, drawBoards, drawTiles, make } from "./view.js";

const RANGES = { m15: 900_000, h1: 3_600_000, h6: 21_600_000, d1: 86_400_000, d7: 604_800_000, d30: 2_592_000_000, y1: 31_557_600_000 };
const LONGEST_MS = 30 * RANGES.y1;
const SHORTEST_MS = 10_000;
/** The browser's own retry ends with an error status; then this one goes on. */
const RETRY_MS = 3_000;
/** A live chart is asked for anew at most this often. */
const CHART_EVERY_MS = 2_000;
const ALARMS_EVERY_MS = 5_000;
const RECENT_EVERY_MS = 300_000;

const $ = (id) => document.getElementById(id);
let about = null, picked = null, stream = null, retry = 0;
const view = { span: RANGES.m15, to: null };
const charts = {
  temperature: new Chart($("temperature"), "--warm", "°C", zoom),
  humidity: new Chart($("humidity"), "--damp", "%", zoom),
};

async function ask(path) {
  const answer = await fetch(`/api/v1/${path}`, { headers: { accept: "application/json" } });
  if (answer.status === 401) refused();
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

const tell = (path, body) =>
  fetch(`/api/v1/${path}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

function link(state) {
  $("link").dataset.state = state;
  $("link").textContent = t[state];
}

function refused() {
  stream?.close();
  stream = null;
  $("page").hidden = true;
  $("refused").hidden = false;
  $("login").hidden = !about?.login;
  $("link").textContent = "";
}

async function start() {
  clearTimeout(retry);
  try {
    about = await ask("about");
  } catch {
    link("lost");
    retry = setTimeout(start, RETRY_MS);
    return;
  }
  setClock(about.now);
  $("version").textContent = t.brokerVersion(about.version, about.revision);
  $("user").textContent = about.user ?? "";
  $("who").hidden = !about.user;
  if (!about.may.read) return refused();
  $("refused").hidden = true;
  $("page").hidden = false;
  listen();
}

function listen() {
  stream?.close();
  stream = new EventSource("/api/v1/events");
  const on = (name, act) => stream.addEventListener(name, (event) => act(JSON.parse(event.data)));
  on("hello", (hello) => {
    setClock(hello.now);
    refresh();
  });
  on("refresh", refresh);
  on("readings", (readings) => {
    let fresh = false, drawn = false;
    for (const reading of readings) {
      fresh = takeReading(reading)[1] || fresh;
      drawn = drawn || keyOf(reading) === picked;
    }
    if (fresh) refresh();
    if (drawn && view.to === null) draw();
    show();
  });
  on("board", (board) => {
    const before = boards.get(board.node)?.status;
    boards.set(board.node, board);
    if (before && before !== board.status) say(board.status === "offline" ? t.toldOffline(board.node) : t.toldOnline(board.node));
    show(true);
  });
  on("gone", ({ node }) => {
    boards.delete(node);
    show(true);
  });
  stream.onerror = () => {
    link("lost");
    // Closed for good: the broker answered with an error, or is not there. A lost connection comes back by itself.
    if (stream?.readyState === EventSource.CLOSED) retry = setTimeout(start, RETRY_MS);
  };
}

/** Everything anew: what was missed while nobody listened is in the log. */
async function refresh() {
  try {
    const [allSensors, allBoards] = await Promise.all([ask("sensors"), ask("nodes")]);
    takeSensors(allSensors);
    boards.clear();
    for (const board of allBoards) boards.set(board.node, board);
  } catch {
    return;
  }
  link("live");
  if (!sensors.has(picked)) picked = [...sensors.keys()].sort()[0] ?? null;
  show(true);
  draw(true);
  recent();
  alarms();
}

let raised = new Set();
async function alarms() {
  if (!stream) return;
  const found = await ask("alarms").catch(() => null);
  if (!found) return;
  for (const { name, detail, raised: is } of found) if (is && !raised.has(name)) say(t.toldRaised(name, detail));
  raised = new Set(found.filter((alarm) => alarm.raised).map((alarm) => alarm.name));
  $("alarms").hidden = found.length === 0;
  drawAlarms($("alarmList"), found);
}

/** The last hour of every tile that can be seen. */
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) if (isIntersecting) recentOf(sensors.get(target.dataset.key));
}, { rootMargin: "200px" });

function recent() {
  seen.disconnect();
  for (const tile of $("tiles").children) seen.observe(tile);
}

async function recentOf(sensor) {
  if (!sensor?.latest || now() - (sensor.asked ?? 0) < RECENT_EVERY_MS) return;
  sensor.asked = now();
  const to = sensor.latest.at + 1;
  const from = Math.max(to - RANGES.h1, 0);
  try {
    takeRecent(sensor, await ask(`series?${new URLSearchParams({ node: sensor.node, sensor: sensor.sensor, from, to, step: 30_000 })}`));
    show();
  } catch {
    sensor.asked = 0;
  }
}

function say(text) {
  $("said").textContent = text;
}

let boardsDue = true;
let showing = 0;
/** Draws at the next frame, once, however much came. */
function show(withBoards = false) {
  boardsDue ||= withBoards;
  showing ||= requestAnimationFrame(() => {
    showing = 0;
    const before = $("tiles").childElementCount;
    const stale = drawTiles($("tiles"), picked, pick);
    if (stale.length) say(stale.map(t.toldStale).join(". "));
    if ($("tiles").childElementCount !== before) recent();
    if (boardsDue) drawBoards($("boards"), about?.may.switch ? switchOutput : null);
    boardsDue = false;
    $("empty").hidden = sensors.size > 0;
    $("noBoards").hidden = boards.size > 0;
    $("charts").hidden = !picked;
    $("sum").textContent = t.sum(sensors.size, [...boards.values()].filter((board) => board.status === "online").length);
  });
}

async function switchOutput(node, output, on) {
  const answer = await tell(`outputs/${encodeURIComponent(node)}/${encodeURIComponent(output)}`, { on }).catch(() => null);
  if (!answer?.ok) say(t.switchFailed);
  // The board says itself what the line has become; without its word the switch falls back.
  setTimeout(() => show(true), answer?.ok ? 2_000 : 0);
}

function pick(key) {
  picked = key;
  show();
  draw(true);
}

function zoom(from, to) {
  const span = Math.min(Math.max(to - from, SHORTEST_MS), LONGEST_MS);
  view.span = span;
  view.to = to >= now() - span * 0.02 ? null : to;
  draw(true);
}

let drawing = 0, drawnAt = 0, asked = 0;
/** Asks for the chart's range and draws it; not more often than a reader can see. */
function draw(atOnce = false) {
  clearTimeout(drawing);
  const every = Math.max(CHART_EVERY_MS, view.span / 1_000);
  drawing = setTimeout(drawNow, atOnce ? 0 : Math.max(0, drawnAt + every - Date.now()));
}

async function drawNow() {
  const sensor = sensors.get(picked);
  if (!sensor) return;
  drawnAt = Date.now();
  const mine = ++asked;
  const to = Math.round(view.to ?? now() + 1_000), from = Math.max(0, Math.round(to - view.span));
  const range = new URLSearchParams({ node: sensor.node, sensor: sensor.sensor, from, to });
  let series;
  try {
    series = await ask(`series?${range}`);
  } catch {
    return;
  }
  // A later question has been asked meanwhile.
  if (mine !== asked) return;
  $("csv").href = `/api/v1/export?${range}`;
  $("chartTitle").textContent = `${sensor.node} · ${sensor.sensor}`;
  $("span").textContent = `${time(from)} – ${view.to === null ? t.now : time(to)} · ${series.step_ms ? t.step(length(series.step_ms)) : t.single}`;
  const { columns, gaps } = withGaps(series, sensor.interval);
  for (const [name, unit] of [["temperature", "°C"], ["humidity", "%"]]) {
    const column = columns[name];
    const means = column.mean.filter((value) => value != null);
    $(name).parentElement.hidden = means.length === 0 && name !== "temperature";
    const least = Math.min(...column.min.filter((value) => value != null)), most = Math.max(...column.max.filter((value) => value != null));
    const mean = means.reduce((sum, value) => sum + value, 0) / means.length;
    $(`${name}Said`).textContent = means.length
      ? t.said(t[name], `${number(least)} ${unit}`, `${number(mean)} ${unit}`, `${number(most)} ${unit}`, gaps.length)
      : t.nothing(t[name]);
    charts[name].show(columns.x, column, gaps, from / 1000, to / 1000);
  }
  $("chartNote").textContent = series.partial ? t.partial : "";
  for (const button of $("ranges").children) button.setAttribute("aria-pressed", String(Number(button.dataset.span) === view.span && view.to === null));
}

function wire() {
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
    const answer = await tell("session", Object.fromEntries(new FormData($("login")))).catch(() => null);
    $("loginError").textContent = answer?.ok ? "" : t.wrong;
    $("login").elements.password.value = "";
    if (answer?.ok) start();
  });
  $("logout").addEventListener("click", async () => {
    await fetch("/api/v1/session", { method: "DELETE" }).catch(() => null);
    start();
  });
  // Ages grow by themselves.
  setInterval(() => show(), 1_000);
  setInterval(() => show(true), 30_000);
  setInterval(alarms, ALARMS_EVERY_MS);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && stream) refresh();
  });
}

wire();
link("wait");
start();
