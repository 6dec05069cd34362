// The data of the page: sensors, boards, alarms, and the quality of each latest reading. Nothing is drawn here.

/** A reading is stale when it is older than this many of its sensor's usual intervals. */
const STALE_INTERVALS = 2.5;
/** The same limit while the interval is not known. */
const STALE_UNKNOWN_MS = 60_000;
/** A reading this far ahead of the broker's clock comes from a clock that is set wrong. */
export const AHEAD_MS = 5_000;
/** Beyond it, its time does not say where it belongs among others. */
const FAR_AHEAD_MS = 60_000;
/** An unset clock that is this far off shows no time of day. */
const UNSET_MS = 86_400_000;
/** Most readings kept of each sensor for its sparkline, and their greatest age. */
const RECENT_MAX = 240;
const RECENT_MS = 3_600_000;
/** Of less than an hour at least so many, where there are: a wave of a minute is one from the first minutes on. */
const RECENT_LEAST = 40;
/** Shorter than this, they tell no change per hour. */
const TREND_FROM_MS = 900_000;

/** Sensors of boards by `node/sensor`, and behind them the series of other publishers by their keys. */
export const sensors = new Map();
export const boards = new Map();
/** Alarms by name, in the order of the configuration. */
export const alarms = new Map();
/** While the broker does not answer, the page knows only the past. */
export const link = { lost: false, lostAt: 0 };
/** The broker's clock minus this machine's clock, ms. */
let offset = 0;

export const now = () => Date.now() + offset;
export const setClock = (ms) => { offset = ms - Date.now(); };
export const keyOf = (reading) => `${reading.node}/${reading.sensor}`;

/** Applies the list of all sensors, which the page requests after each (re)connection. */
export function applySensors(list) {
  const found = new Set();
  for (const { node, sensor, interval_ms, latest } of list) {
    const key = `${node}/${sensor}`;
    found.add(key);
    const known = sensors.get(key) ?? { key, node, sensor, recent: [], latest: null };
    known.interval = interval_ms;
    // The broker knows which is the latest; an event may have brought a later one meanwhile.
    if (latest && !(known.latest?.boot === latest.boot && known.latest.seq > latest.seq)) replace(known, latest);
    sensors.set(key, known);
  }
  for (const [key, sensor] of sensors) if (!isForeign(sensor) && !found.has(key)) sensors.delete(key);
}

/** Whether a series is of another publisher: it has a topic and a field, and no board. */
export const isForeign = (sensor) => sensor.topic !== undefined;

/**
 * A series of another publisher. It is grouped by the first two levels of its topic, which in most schemes name the device;
 * the rest of the topic and the field name the tile. No board has a key with `~`.
 */
function foreign(topic, field) {
  const separator = "/";
  const levels = topic.split(separator);
  const size = Math.min(2, levels.length - (field ? 0 : 1)) || 1;
  const group = levels.slice(0, size).join(separator);
  const rest = levels.slice(size).join(separator);
  return { key: `~${group}\t${topic}\t${field}`, group, name: field || rest || topic, within: field ? rest : "", topic, field, interval: null, recent: [], latest: null };
}

function foreignSeries(topic, field) {
  const fresh = foreign(topic, field);
  const known = sensors.get(fresh.key) ?? fresh;
  sensors.set(known.key, known);
  return known;
}

/** Applies the list of all series of other publishers. */
export function applySources(list) {
  const found = new Set();
  for (const { topic, field, interval_ms, latest } of list) {
    const known = foreignSeries(topic, field);
    found.add(known.key);
    known.interval = interval_ms;
    if (latest && !(known.latest?.at > latest.at)) known.latest = latest;
  }
  for (const [key, sensor] of sensors) if (isForeign(sensor) && !found.has(key)) sensors.delete(key);
}

/** Applies a sample that was just committed; returns its series. */
export function applySample({ topic, field, at, value }) {
  const known = foreignSeries(topic, field);
  known.latest = { at, value };
  remember(known, at, [value, value, value]);
  return known;
}

/** Applies a reading that was just committed; returns its sensor, and whether the sensor is new. */
export function applyReading(reading) {
  const key = keyOf(reading);
  let known = sensors.get(key);
  const fresh = !known;
  if (fresh) {
    known = { key, node: reading.node, sensor: reading.sensor, interval: null, recent: [], latest: null };
    sensors.set(key, known);
  }
  // A board's backlog is older than the reading on display.
  if (!known.latest || isNewer(reading, known)) {
    replace(known, reading);
    const value = reading.temperature ?? reading.humidity;
    remember(known, reading.at, [value, value, value]);
  }
  return [known, fresh];
}

function replace(sensor, reading) {
  if (sensor.latest && sensor.latest.boot !== reading.boot) (sensor.earlier ??= new Set()).add(sensor.latest.boot);
  sensor.earlier?.delete(reading.boot);
  sensor.latest = reading;
}

/** Whether a reading that was just committed is newer than the one on display: by its number in a run; from another run by
 * its time where both can be believed, else unless the run was on display before. */
function isNewer(reading, { latest, earlier }) {
  if (reading.boot === latest.boot) return reading.seq >= latest.seq;
  const believed = ({ at, clock }) => clock !== "unsynced" && at <= now() + FAR_AHEAD_MS;
  if (believed(reading) && believed(latest)) return reading.at >= latest.at;
  return !earlier?.has(reading.boot);
}

/** Applies the last hour of a sensor, for its sparkline. */
export function applyRecent(sensor, series) {
  const { mean, min, max } = series.value ?? (series.temperature.mean.some((value) => value != null) ? series.temperature : series.humidity);
  sensor.recent = [];
  series.at.forEach((at, index) => remember(sensor, at, [mean[index], min[index], max[index]]));
}

/** The raised alarms of one sensor. */
export const raisedOn = (sensor) =>
  [...alarms.values()].filter((alarm) => !isForeign(sensor) && alarm.raised && alarm.node === sensor.node && alarm.sensor === sensor.sensor);

/** Whether the latest value is on the other side of an alarm's limit than the alarm's state says. */
export function isOutdated({ kind, node, sensor, quantity, side, limit, raised }) {
  const value = sensors.get(`${node}/${sensor}`)?.latest?.[quantity];
  return kind === "threshold" && value != null && (side === "above" ? value > limit : value < limit) !== raised;
}

/** Whether the sensor's board stamps its readings with a clock that is not set. */
export const hasUnsetClock = (sensor) => sensor.latest?.clock === "unsynced";

/** Reads below this number tell no share. */
const SHARE_FROM = 3;

/** The sensors of `node` that its board counts reads of: also those that never gave a reading. */
export const counted = (node) => Object.keys(boards.get(node)?.health?.reads_1h ?? {});

/** The sensors whose reads all failed and that the log has no reading of, as those of `sensors`. */
export const mute = () => [...boards.keys()].flatMap((node) => counted(node).flatMap((sensor) => {
  const key = `${node}/${sensor}`;
  return sensors.has(key) || !silence(node, sensor) ? [] : [{ key, node, sensor, interval: null, recent: [], latest: null, isMute: true }];
}));

/** How many reads of a sensor failed in the last hour, and the most frequent cause since its board's start; null where one was good, or none failed. */
export function silence(node, sensor) {
  const health = boards.get(node)?.health;
  const reads = health?.reads_1h?.[sensor];
  if (!reads?.failed || reads.good) return null;
  const [cause] = Object.entries(health.failures[sensor] ?? {}).reduce((most, one) => (one[1] > most[1] ? one : most), ["", 0]);
  return { failed: reads.failed, cause };
}

const collator = new Intl.Collator("en", { numeric: true });
/** The order of names: `t2` before `t10`. */
export const byName = (one, other) => collator.compare(one, other) || (one < other ? -1 : Number(one > other));
/** The order of sensors: by board, and behind all boards other publishers' series by group. */
export const inOrder = (one, other) => isForeign(one) - isForeign(other)
  || byName(one.group ?? one.node, other.group ?? other.node)
  || byName(one.topic ?? one.sensor, other.topic ?? other.sensor)
  || byName(one.field ?? "", other.field ?? "");

/** Age in ms of what a board last said of itself, by the broker's clock; null where nobody knows. */
export function healthAge({ health, health_at: received }) {
  const at = received ?? (health?.clock === "synced" ? health.at : null);
  return at === null ? null : Math.max(now() - at, 0);
}

/**
 * Whether there never was what an alarm watches: a mistyped name, or something that is not there yet. Its owner must not take
 * it for watched.
 */
export function isUnreported({ kind, node, sensor, output }) {
  if (!kind || node === "broker") return false;
  if (sensor) return !sensors.has(`${node}/${sensor}`);
  if (output && kind === "fault") return boards.get(node)?.outputs?.[output] === undefined;
  return !boards.has(node) && ![...sensors.values()].some((sensor) => sensor.node === node);
}

/** The share of a sensor's reads of the last hour that gave a reading, 0 to 1, as its board counts them; null while nobody knows. */
export function share(node, sensor) {
  const board = boards.get(node);
  const reads = board?.status === "offline" ? null : board?.health?.reads_1h?.[sensor];
  const all = reads ? reads.good + reads.failed : 0;
  return all < SHARE_FROM ? null : reads.good / all;
}

/** Notes a value with the lowest and the highest of the time that it stands for. */
function remember(sensor, at, [value, low, high]) {
  if (value == null || at > now() + FAR_AHEAD_MS) return;
  // The board has started anew without the time.
  if (sensor.recent.length && at < sensor.recent[sensor.recent.length - 1][0] - RECENT_MS) sensor.recent = [];
  // Those of a board that reads often are thinned out, or the hour would not fit. The last one is always there, and the
  // range of those that went: a fast wave would else look like a slow one.
  const before = sensor.recent[sensor.recent.length - 2]?.[0];
  const step = Math.min(RECENT_MS / RECENT_MAX, (at - sensor.recent[0]?.[0]) / RECENT_LEAST);
  if (at - before < step) {
    const [, , lowest, highest] = sensor.recent.pop();
    [low, high] = [Math.min(low, lowest), Math.max(high, highest)];
  }
  sensor.recent.push([at, value, low, high]);
  const oldest = at - RECENT_MS;
  while (sensor.recent.length > RECENT_MAX || sensor.recent[0]?.[0] < oldest) sensor.recent.shift();
}

/** The quality of a sensor's latest reading: a grade, and its age in ms. */
export function quality(sensor) {
  const { latest, interval } = sensor;
  if (!latest) return [link.lost ? "unconnected" : boards.get(sensor.node)?.status === "offline" ? "offline" : "none", null];
  const age = now() - latest.at;
  if (link.lost) return ["unconnected", age];
  // Many publish changes only: nobody knows when the next one is due.
  if (isForeign(sensor)) return ["foreign", age];
  if (boards.get(sensor.node)?.status === "offline") return ["offline", age];
  // A clock that begins in 1970 tells no age. A board without a time source whose clock is right is as good as another.
  if (hasUnsetClock(sensor) && Math.abs(age) > UNSET_MS) return ["unset", age];
  if (age < -AHEAD_MS) return ["ahead", age];
  if (age > (interval ? interval * STALE_INTERVALS : STALE_UNKNOWN_MS)) return ["stale", age];
  return ["good", age];
}

/**
 * Change per hour over the recent readings; 0 where it is less than `steady`. Null while there are too few, and where they
 * scatter too much to tell.
 */
export function trend(sensor, steady) {
  const recent = sensor.recent;
  if (recent.length < 6) return null;
  const span = recent[recent.length - 1][0] - recent[0][0];
  if (span < TREND_FROM_MS) return null;
  // Least squares: one outlier at either end does not change the direction.
  const n = recent.length;
  const meanAt = recent.reduce((sum, [at]) => sum + at, 0) / n;
  const mean = recent.reduce((sum, [, value]) => sum + value, 0) / n;
  let above = 0, below = 0, squares = 0;
  for (const [at, value] of recent) {
    above += (at - meanAt) * (value - mean);
    below += (at - meanAt) ** 2;
    squares += (value - mean) ** 2;
  }
  const slope = above / below;
  // Twice the standard error of the slope.
  const scatter = 2 * Math.sqrt(Math.max(squares - slope * above, 0) / (n - 2) / below) * 3_600_000;
  const change = slope * 3_600_000;
  if (Math.abs(change) + scatter < steady) return 0;
  if (Math.abs(change) <= scatter) return null;
  return Math.abs(change) < steady ? 0 : change;
}
