// The page's words in English and Korean, and numbers and times as the reader's locale writes them.

const english = {
  skip: "Skip to the readings", sensors: "Sensors", boards: "Boards", alarms: "Alarms",
  empty: "No reading has been stored yet. The first one appears here by itself.",
  noBoards: "No board has said anything of itself yet.",
  live: "Live", wait: "Connecting…", lost: "Connection lost, trying again…",
  sum: (sensors, boards) =>
    `${count(sensors)} ${sensors === 1 ? "sensor" : "sensors"} · ${count(boards)} ${boards === 1 ? "board" : "boards"} online`,
  temperature: "Temperature", humidity: "Humidity",
  good: "Good", stale: "Stale", offline: "Board offline", unset: "Clock not set", ahead: "Clock ahead", none: "No reading",
  restamped: "Time corrected",
  perHour: "per hour", steady: "steady",
  range: "Range", earlier: "Earlier", later: "Later", zoomOut: "Longer range", zoomIn: "Shorter range",
  csv: "CSV", all: "All", now: "now",
  ranges: { m15: "15 min", h1: "1 h", h6: "6 h", d1: "24 h", d7: "7 d", d30: "30 d", y1: "1 y" },
  said: (what, least, mean, most, gaps) =>
    `${what}: lowest ${least}, mean ${mean}, highest ${most}${gaps ? `, ${gaps === 1 ? "1 gap" : `${gaps} gaps`}` : ""}`,
  nothing: (what) => `${what}: nothing stored in this range`,
  partial: "Not everything of this range could be read in time; a shorter one shows the rest.",
  step: (step) => `mean per ${step}, band from lowest to highest`,
  single: "single readings",
  board: "Board", state: "State", outbox: "Waiting", dropped: "Given up", errors: "Failed reads", inputs: "Inputs",
  outputs: "Outputs", version: "Version", online: "Online", gone: "Offline", unknown: "Unknown",
  memory: "in memory only", on: "on", off: "off", raised: "Raised", toldRaised: (name, detail) => `Alarm ${name}: ${detail}`,
  refusedTitle: "Not from here", refusedText: "Who has not logged in may look only from the machine that the broker runs on. HUMIDOR_HTTP_GUESTS=read lets everybody look.",
  name: "User", password: "Password", login: "Log in", logout: "Log out", wrong: "Wrong user or password, or too many tries; wait a minute.",
  metrics: "Metrics", brokerVersion: (version, revision) => `humidor ${version}${revision ? ` (${revision.slice(0, 12)})` : ""}`,
  times: (zone) => `Times in ${zone}`,
  toldOffline: (node) => `Board ${node} is offline`, toldOnline: (node) => `Board ${node} is online`,
  toldStale: (name) => `${name} is stale`, switchFailed: "The output could not be told",
};

const korean = {
  skip: "측정값으로 건너뛰기", sensors: "센서", boards: "보드", alarms: "경보",
  empty: "아직 저장된 측정값이 없습니다. 첫 값은 저절로 나타납니다.",
  noBoards: "아직 상태를 알린 보드가 없습니다.",
  live: "실시간", wait: "연결 중…", lost: "연결이 끊겼습니다. 다시 시도 중…",
  sum: (sensors, boards) => `센서 ${count(sensors)}개 · 온라인 보드 ${count(boards)}개`,
  temperature: "온도", humidity: "습도",
  good: "정상", stale: "오래된 값", offline: "보드 오프라인", unset: "시계 미설정", ahead: "시계 빠름", none: "측정값 없음",
  restamped: "시각 보정됨",
  perHour: "시간당", steady: "변화 없음",
  range: "기간", earlier: "이전", later: "이후", zoomOut: "기간 늘리기", zoomIn: "기간 줄이기",
  csv: "CSV", all: "전체", now: "현재",
  ranges: { m15: "15분", h1: "1시간", h6: "6시간", d1: "24시간", d7: "7일", d30: "30일", y1: "1년" },
  said: (what, least, mean, most, gaps) =>
    `${what}: 최저 ${least}, 평균 ${mean}, 최고 ${most}${gaps ? `, 누락 ${gaps}곳` : ""}`,
  nothing: (what) => `${what}: 이 기간에 저장된 값이 없습니다`,
  partial: "이 기간을 시간 안에 다 읽지 못했습니다. 기간을 줄이면 나머지가 보입니다.",
  step: (step) => `${step} 단위 평균, 띠는 최저에서 최고까지`,
  single: "개별 측정값",
  board: "보드", state: "상태", outbox: "대기", dropped: "포기", errors: "읽기 실패", inputs: "입력",
  outputs: "출력", version: "버전", online: "온라인", gone: "오프라인", unknown: "알 수 없음",
  memory: "메모리에만 보관", on: "켜짐", off: "꺼짐", raised: "발생", toldRaised: (name, detail) => `경보 ${name}: ${detail}`,
  refusedTitle: "여기서는 볼 수 없습니다", refusedText: "로그인하지 않으면 브로커가 실행되는 기기에서만 볼 수 있습니다. HUMIDOR_HTTP_GUESTS=read 로 설정하면 누구나 볼 수 있습니다.",
  name: "사용자", password: "비밀번호", login: "로그인", logout: "로그아웃", wrong: "사용자나 비밀번호가 틀렸거나 시도가 너무 많습니다. 잠시 기다리세요.",
  metrics: "지표", brokerVersion: english.brokerVersion,
  times: (zone) => `표준시간대: ${zone}`,
  toldOffline: (node) => `보드 ${node} 오프라인`, toldOnline: (node) => `보드 ${node} 온라인`,
  toldStale: (name) => `${name} 값이 오래되었습니다`, switchFailed: "출력에 명령을 보내지 못했습니다",
};

const locale = navigator.language || "en";
const isKorean = locale.toLowerCase().startsWith("ko");
export const t = isKorean ? korean : english;
document.documentElement.lang = isKorean ? "ko" : "en";

const one = new Intl.NumberFormat(locale, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat(locale);
const signed = new Intl.NumberFormat(locale, { minimumFractionDigits: 1, maximumFractionDigits: 1, signDisplay: "always" });
// Words like "seconds ago" are of the page's language, not of a third one.
const relative = new Intl.RelativeTimeFormat(isKorean ? "ko" : "en", { numeric: "always", style: "short" });
const clock = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium" });

export const number = (value) => (value == null ? "–" : one.format(value));
export const count = (value) => whole.format(value);
export const change = (value) => signed.format(value);
export const time = (ms) => clock.format(ms);
export const zone = new Intl.DateTimeFormat(locale).resolvedOptions().timeZone;

const UNITS = [["year", 31_536_000], ["month", 2_592_000], ["day", 86_400], ["hour", 3_600], ["minute", 60], ["second", 1]];

/** How long ago, in the largest unit that fits. */
export function ago(ms) {
  const seconds = Math.round(ms / 1000);
  const [unit, length] = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? UNITS[5];
  return relative.format(-Math.trunc(seconds / length), unit);
}

/** A length of time in its largest unit: "10 min". */
export function length(ms) {
  const seconds = ms / 1000;
  const [unit, size] = UNITS.find(([, size]) => seconds >= size) ?? UNITS[5];
  return new Intl.NumberFormat(isKorean ? "ko" : "en", { style: "unit", unit, maximumFractionDigits: 1 }).format(seconds / size);
}

const axis = (options) => new Intl.DateTimeFormat(locale, options);
const AXES = [
  [60, axis({ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" })],
  [86_400, axis({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" })],
  [2_500_000, axis({ month: "short", day: "numeric" })],
  [31_000_000, axis({ year: "numeric", month: "short" })],
  [Infinity, axis({ year: "numeric" })],
];
const DAY = axis({ month: "short", day: "numeric" });

/** Labels of a time axis whose marks are `step` seconds apart. */
export function axisTimes(marks, step) {
  const [, format] = AXES.find(([below]) => step < below);
  let day = null;
  return marks.map((mark) => {
    const text = format.format(mark * 1000);
    const date = DAY.format(mark * 1000);
    const turns = step < 86_400 && day !== null && date !== day;
    day = date;
    return turns ? `${text}\n${date}` : text;
  });
}

/** Fills the words of the static part in. */
export function fill() {
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t[element.dataset.t];
  for (const element of document.querySelectorAll("[data-l]")) {
    element.setAttribute("aria-label", t[element.dataset.l]);
    element.title = t[element.dataset.l];
  }
}
