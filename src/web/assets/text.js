// Every text of the page in English and Korean; numbers and times in the format of the reader's locale.

const english = {
  skip: "Skip to the readings", sensors: "Sensors", boards: "Boards", alarms: "Alarms",
  empty: "No readings are stored yet. The first one will show up automatically.",
  firstUser: "The boards need a user. On the broker:",
  firstBoard: "Start a board with a DHT22 on header pin 7. On a Raspberry Pi with Docker:",
  firstOther: "An Orange Pi also needs --device /dev/gpiochip1 and -e HUMIDOR_BOARD=orange-pi-zero-3 or orange-pi-zero.",
  brokerAddress: "BROKER-ADDRESS", copy: "Copy", copied: "Copied", selected: "Selected: copy it with the keyboard",
  noBoards: "No board has reported yet. Boards will show up automatically.",
  live: "Live", wait: "Connecting…", lost: "Connection lost. Reconnecting…",
  sum: (sensors, boards) =>
    `${count(sensors)} ${sensors === 1 ? "sensor" : "sensors"} · ${count(boards)} ${boards === 1 ? "board" : "boards"} online`,
  temperature: "Temperature", humidity: "Humidity",
  good: "Good", stale: "Stale", offline: "Board offline", unset: "Clock not set", ahead: "Clock ahead", none: "No reading",
  perHour: (change, unit) => `${change} ${unit}/h`, steady: "steady",
  range: "Time range", earlier: "Earlier", later: "Later", zoomOut: "Longer range", zoomIn: "Shorter range",
  csv: "CSV", now: "now",
  ranges: { m15: "15 min", h1: "1 h", h6: "6 h", d1: "24 h", d7: "7 d", d30: "30 d", y1: "1 y" },
  summary: (quantity, lowest, mean, highest, gaps) =>
    `${quantity}: lowest ${lowest}, mean ${mean}, highest ${highest}${gaps ? `, ${gaps === 1 ? "1 gap" : `${gaps} gaps`}` : ""}`,
  nothing: (quantity) => `${quantity}: no readings in this range`,
  partial: "Part of this range could not be read in time. Choose a shorter range to see the rest.",
  step: (step) => `mean of each ${step}, the band shows lowest to highest`,
  single: "individual readings",
  board: "Board", state: "Status", outbox: "Queued", dropped: "Lost", errors: "Failed reads", inputs: "Inputs",
  outputs: "Outputs", version: "Version", online: "Online", gone: "Offline", unknown: "Unknown",
  memory: "in memory only", on: "on", off: "off", raised: "Raised", normal: "Normal",
  loginTitle: "Log in to see this page", loginText: "Without a login it opens only on the broker's own machine.",
  deniedTitle: "No permission to read",
  deniedText: (user) => `User ${user} may not read the log and the boards. Log in as another user.`,
  noUsersTitle: "You cannot see this page from here",
  noUsersText: "The broker has no users yet. Create one with “humidor user add NAME”, or set HUMIDOR_HTTP_GUESTS=read on the broker.",
  name: "User name", password: "Password", login: "Log in", logout: "Log out",
  loginWrong: "Wrong user name or password.", loginBusy: "Too many attempts. Wait a minute, then try again.",
  loginFailed: (reason) => `Could not log in: ${reason}`,
  metrics: "Metrics", brokerVersion: (version, revision) => `humidor ${version}${revision ? ` (${revision.slice(0, 12)})` : ""}`,
  times: (zone) => `Times in ${zone}`,
  boardOffline: (node) => `Board ${node} is offline`, boardOnline: (node) => `Board ${node} is online`,
  sensorStale: (name) => `No new readings from ${name}`, alarmRaised: (name, detail) => `Alarm ${name} raised: ${detail}`,
  switchFailed: (reason) => `Could not switch the output: ${reason}`,
  forget: "Remove", forgetAsk: (node) => `Delete board ${node} with all its readings for good?`,
  forgetFailed: (reason) => `Could not remove the board: ${reason}`, isOnline: "it is online; stop it first",
  noAnswer: "no answer", notAllowed: "not allowed", noOutput: "the board no longer has it",
  refused: (status) => `the broker answered with error ${status}`,
};

const korean = {
  skip: "측정값으로 건너뛰기", sensors: "센서", boards: "보드", alarms: "경보",
  empty: "아직 저장된 측정값이 없습니다. 첫 측정값이 들어오면 자동으로 표시됩니다.",
  firstUser: "보드에는 사용자가 필요합니다. 브로커에서 다음을 실행합니다:",
  firstBoard: "헤더 핀 7에 DHT22를 연결한 보드를 시작합니다. Docker가 있는 Raspberry Pi에서 다음을 실행합니다:",
  firstOther: "Orange Pi에는 --device /dev/gpiochip1과 -e HUMIDOR_BOARD=orange-pi-zero-3 또는 orange-pi-zero도 필요합니다.",
  brokerAddress: "브로커-주소", copy: "복사", copied: "복사했습니다", selected: "선택했습니다. 키보드로 복사해야 합니다",
  noBoards: "아직 상태를 보고한 보드가 없습니다. 보드가 보고하면 자동으로 표시됩니다.",
  live: "실시간", wait: "연결 중…", lost: "연결이 끊겼습니다. 다시 연결하고 있습니다…",
  sum: (sensors, boards) => `센서 ${count(sensors)}개 · 온라인 보드 ${count(boards)}개`,
  temperature: "온도", humidity: "습도",
  good: "정상", stale: "갱신 지연", offline: "보드 오프라인", unset: "시계 미설정", ahead: "시계 빠름", none: "측정값 없음",
  perHour: (change, unit) => `시간당 ${change} ${unit}`, steady: "변화 없음",
  range: "기간", earlier: "이전", later: "이후", zoomOut: "기간 늘리기", zoomIn: "기간 줄이기",
  csv: "CSV", now: "현재",
  ranges: { m15: "15분", h1: "1시간", h6: "6시간", d1: "24시간", d7: "7일", d30: "30일", y1: "1년" },
  summary: (quantity, lowest, mean, highest, gaps) =>
    `${quantity}: 최저 ${lowest}, 평균 ${mean}, 최고 ${highest}${gaps ? `, 누락 구간 ${gaps}개` : ""}`,
  nothing: (quantity) => `${quantity}: 이 기간에는 측정값이 없습니다`,
  partial: "이 기간의 일부를 제시간에 읽지 못했습니다. 기간을 줄이면 나머지를 볼 수 있습니다.",
  step: (step) => `${step} 단위 평균, 음영은 최저~최고 범위`,
  single: "개별 측정값",
  board: "보드", state: "상태", outbox: "전송 대기", dropped: "유실", errors: "읽기 실패", inputs: "입력",
  outputs: "출력", version: "버전", online: "온라인", gone: "오프라인", unknown: "알 수 없음",
  memory: "메모리에만 저장", on: "켜짐", off: "꺼짐", raised: "발생", normal: "정상",
  loginTitle: "이 페이지를 보려면 로그인해야 합니다", loginText: "로그인하지 않으면 브로커가 실행 중인 기기에서만 볼 수 있습니다.",
  deniedTitle: "읽기 권한이 없습니다",
  deniedText: (user) => `${user} 사용자에게는 측정값과 보드를 볼 권한이 없습니다. 다른 사용자로 로그인해야 합니다.`,
  noUsersTitle: "여기에서는 이 페이지를 볼 수 없습니다",
  noUsersText: "브로커에 아직 사용자가 없습니다. “humidor user add 이름” 명령으로 사용자를 추가하거나 브로커에 HUMIDOR_HTTP_GUESTS=read를 설정해야 합니다.",
  name: "사용자 이름", password: "비밀번호", login: "로그인", logout: "로그아웃",
  loginWrong: "사용자 이름 또는 비밀번호가 올바르지 않습니다.", loginBusy: "로그인 시도가 너무 많습니다. 1분 후에 다시 시도해야 합니다.",
  loginFailed: (reason) => `로그인하지 못했습니다: ${reason}`,
  metrics: "메트릭", brokerVersion: english.brokerVersion,
  times: (zone) => `시간대: ${zone}`,
  boardOffline: (node) => `${node} 보드가 오프라인 상태입니다`, boardOnline: (node) => `${node} 보드가 온라인 상태입니다`,
  sensorStale: (name) => `${name} 센서에서 새 측정값이 들어오지 않습니다`, alarmRaised: (name, detail) => `${name} 경보가 발생했습니다: ${detail}`,
  switchFailed: (reason) => `출력을 전환하지 못했습니다: ${reason}`,
  forget: "삭제", forgetAsk: (node) => `${node} 보드와 모든 측정값을 완전히 삭제할까요?`,
  forgetFailed: (reason) => `보드를 삭제하지 못했습니다: ${reason}`, isOnline: "온라인 상태이므로 먼저 중지해야 함",
  noAnswer: "응답 없음", notAllowed: "권한 없음", noOutput: "보드에 해당 출력이 없음",
  refused: (status) => `브로커 오류 ${status}`,
};

const locale = navigator.language || "en";
const isKorean = locale.toLowerCase().startsWith("ko");
export const t = isKorean ? korean : english;
document.documentElement.lang = isKorean ? "ko" : "en";

const one = new Intl.NumberFormat(locale, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat(locale);
const signed = new Intl.NumberFormat(locale, { minimumFractionDigits: 1, maximumFractionDigits: 1, signDisplay: "always" });
// Phrases such as "5 min. ago" are in the page's language, even where the locale is a third one.
const relative = new Intl.RelativeTimeFormat(isKorean ? "ko" : "en", { numeric: "always", style: "short" });
const clock = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium" });
/** The minus sign U+2212, which is as wide as the plus sign, for the hyphen of most locales. */
const minus = (text) => text.replace("-", "−");

export const number = (value) => (value == null ? "–" : minus(one.format(value)));
export const count = (value) => whole.format(value);
export const change = (value) => minus(signed.format(value));
export const time = (ms) => clock.format(ms);
export const zone = new Intl.DateTimeFormat(locale).resolvedOptions().timeZone;

const UNITS = [["year", 31_536_000], ["month", 2_592_000], ["day", 86_400], ["hour", 3_600], ["minute", 60], ["second", 1]];

/** A past time as "5 min. ago", in the largest unit that fits; `ms` is its age. */
export function ago(ms) {
  const seconds = Math.round(ms / 1000);
  const [unit, length] = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? UNITS[5];
  return relative.format(-Math.trunc(seconds / length), unit);
}

/** A duration in the largest unit that fits: "10 min". */
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
    const isNewDay = step < 86_400 && day !== null && date !== day;
    day = date;
    return isNewDay ? `${text}\n${date}` : text;
  });
}

/** Fills the texts of the static HTML in. */
export function fill() {
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t[element.dataset.t];
  for (const element of document.querySelectorAll("[data-l]")) {
    element.setAttribute("aria-label", t[element.dataset.l]);
    element.title = t[element.dataset.l];
  }
}
