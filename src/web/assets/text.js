// Every text of the page in English and Korean; numbers and times in the format of the reader's locale.

const PULL_UP = "the pull-up (4.7 to 10 kΩ between data and VCC)";
/** Why a sensor gives no readings, by the most frequent cause of its failed reads, and what to check. */
const ADVICE = {
  "no-response": `The sensor does not answer. Check its wiring (VCC, ground, data), ${PULL_UP}, and its pin and model in HUMIDOR_SENSORS.`,
  "stuck-low": `The data line stays low. Check ${PULL_UP}, the pin in HUMIDOR_SENSORS, and the wiring for a short to ground.`,
  damaged: `The sensor's signal arrives damaged. Check ${PULL_UP}, and the wiring: a long cable, a loose contact, noise.`,
  gap: "The board is too busy to read the sensor in time. Look for programs that take its processor.",
  "all-zero": "The sensor sends zeros only. Check its power (VCC, ground).",
  implausible: "The sensor sends values that its model cannot measure. Check its model in HUMIDOR_SENSORS.",
  unconfirmed: `The sensor's values differ too much from read to read. Check its power, ${PULL_UP} and the length of the cable.`,
  line: "The board cannot use the sensor's pin. Its log says why.",
  other: `The reads fail. Check the wiring (VCC, ground, data), ${PULL_UP}, and the pin in HUMIDOR_SENSORS.`,
};
const DAMAGED = ["short", "long", "sequence", "pulse", "checksum", "weak"];
/** What `advice` says about a cause. */
const adviceFor = (advice, cause) => advice[DAMAGED.includes(cause) ? "damaged" : cause === "stale" ? "unconfirmed" : cause] ?? advice.other;

const english = {
  skip: "Skip to the readings", sensors: "Sensors", boards: "Boards", alarms: "Alarms",
  empty: "No readings are stored yet. The first one will show up automatically.",
  firstUser: "The boards need a user. On the broker:", firstUserMaybe: "The boards need a user. On the broker, if there is none yet:",
  firstUserThere: (user) => `The boards log in as user ${user}, with its password.`,
  firstLocal: (port) => `The broker listens for MQTT on its own machine only, so no board elsewhere can reach it. Set HUMIDOR_MQTT_LISTEN=0.0.0.0:${port} on the broker and start it again.`,
  firstBoard: "Start a board with a DHT22 on header pin 7. On a Raspberry Pi with Docker:",
  firstOther: "An Orange Pi also needs --device /dev/gpiochip1 and -e HUMIDOR_BOARD=orange-pi-zero-3 or orange-pi-zero.",
  brokerAddress: "BROKER-ADDRESS", copy: "Copy", copied: "Copied", selected: "Selected: copy it with the keyboard",
  noBoards: "No board has reported yet. Boards will show up automatically.",
  search: "Search sensors and boards", unmatched: "No sensor has such a name.", back: "↑ Sensors", move: "Move and zoom",
  boardTable: "Table of boards",
  clocks: (boards) => `Clock not set: ${boards}. The times of their readings may be wrong.`,
  topic: "Topic", more: (series) => `${count(series)} more values of other publishers: search for a topic to see them.`, value: "Value", refusals: "Refused clients", refusedChip: "Refused",
  refusedWhen: (address, when, times) => `from ${address}, ${when}${times > 1 ? `, ${count(times)} times` : ""}`,
  refusal: (client) => refusalText(client, {
    "no-login": () => "It sent no user. On the board, write mqtt://USER@HOST into HUMIDOR_BROKER and the password into HUMIDOR_PASSWORD.",
    "wrong-password": (user) => `The password of user “${client.user}” is wrong. Correct HUMIDOR_PASSWORD on the board, or ${client.of_setting ? "HUMIDOR_PASSWORD of the broker." : `set a new one on the broker: humidor user passwd ${user}`}`,
    "unknown-user": (user) => isNear(client) ? `There is no user “${client.user}”; did you mean “${client.fleet.name}”? Correct HUMIDOR_BROKER on the board.`
      : `There is no user “${client.user}”. Correct HUMIDOR_BROKER on the board${user === "NAME" ? "." : `, or add the user on the broker: humidor user add --role fleet ${user}`}`,
    "wrong-node": (user) => `The password is right, but user “${client.user}” may not publish as ${client.node}. ${client.role === "node" ? `Set HUMIDOR_NODE=${user} on the board, or let it` : "Let the board"} log in as a user for all boards${client.fleet.exists ? `: “${client.fleet.name}”, which is there.` : `, which you add on the broker: humidor user add --role fleet ${client.fleet.name}`}`,
    "unfit-name": () => `The rules cannot be applied to this client id or to user “${client.user}”. Choose another one on the board.`,
  }),
  live: "Live", wait: "Connecting…",
  sum: (sensors, boards) =>
    `${count(sensors)} ${sensors === 1 ? "sensor" : "sensors"} · ${count(boards)} ${boards === 1 ? "board" : "boards"} online`,
  temperature: "Temperature", humidity: "Humidity",
  sumLost: (sensors) => `${count(sensors)} ${sensors === 1 ? "sensor" : "sensors"} · boards unknown`,
  lost: "Connection lost. Reconnecting…", unconnected: "Unknown", alarm: "Alarm",
  good: "Good", stale: "Stale", offline: "Board offline", unset: "Clock not set", ahead: "Clock ahead", none: "No reading", noneYet: "No reading yet",
  noReading: (cause, failed) => `${adviceFor(ADVICE, cause)} Failed reads in the last hour: ${failed}.`, asOf: (when) => `· ${when}`,
  lostNumbers: (series) => `Not kept from other publishers: ${count(series)} ${series === 1 ? "value" : "values"}`, otherTopics: "Other topics",
  nearNumber: (came, meant) => `came as ${came}, which is no number. It would be kept as ${meant}.`, occurred: (times) => `${times}×`,
  leftOut: "has numbers that cannot be kept: NaN, too large, a name twice or too long, nested too deep, or too many.",
  perHour: (change, unit) => `${change} ${unit}/h`, steady: "steady",
  range: "Time range", earlier: "Earlier", later: "Later", zoomOut: "Longer range", zoomIn: "Shorter range",
  csv: "CSV", now: "now",
  ranges: { m15: "15 min", h1: "1 h", h6: "6 h", d1: "24 h", d7: "7 d", d30: "30 d", y1: "1 y" },
  summary: (quantity, lowest, mean, highest, gaps) =>
    `${quantity}: lowest ${lowest}, mean ${mean}, highest ${highest}${gaps ? `, ${gaps === 1 ? "1 gap" : `${gaps} gaps`}` : ""}`,
  nothing: (quantity) => `${quantity}: no readings in this range`,
  partial: "Part of this range could not be read in time. Choose a shorter range to see the rest.",
  step: (step) => `means over ${step}, the band shows lowest to highest`,
  single: "individual readings",
  board: "Board", state: "Status", outbox: "Queued", dropped: "Lost", errors: "Good reads (1 h)", time: "Time", inputs: "Inputs",
  outputs: "Outputs", version: "Version", 
  online: (since) => (since ? `Online for ${since}` : "Online"), gone: (since) => (since ? `Offline for ${since}` : "Offline"),
  unknown: () => "Unknown", readingsOnly: "Readings, no status", lastKnown: (status) => `Unknown; last: ${status}`,
  failed: "Failed reads since the board's start:", causes: { stale: "old value at the start", unconfirmed: "not confirmed yet" },
  memory: "in memory only", on: "on", off: "off", raised: "Raised", normal: "Normal", cleared: "Cleared", alarmHistory: "History",
  unreported: "Nothing reported yet", removed: (name) => `${name} was removed. Another sensor is shown instead.`,
  threshold: (sensor, quantity, value, side, limit) => `${sensor}: ${quantity} ${value}, limit ${side} ${limit}`,
  silent: (sensor, limit) => `${sensor}: no reading for ${limit}`,
  // What an alarm that is not raised waits for.
  if: {
    threshold: (sensor, quantity, side, limit) => `${sensor}: ${quantity} limit ${side} ${limit}`,
    silent: (sensor, limit) => `${sensor}: raised after ${limit} without a reading`,
    missing: (node) => `${node}: raised if readings are missing`, clockAlarm: (node) => `${node}: raised if the clock is not set, or ahead`,
    disk: () => "Raised if the broker's disk fails a write",
    fault: (node, output) => `${node}: raised if output ${output} cannot be switched`,
    versionAlarm: (node) => (node ? `${node}: raised if its version is not that of most boards` : "Raised if boards run different versions"),
    upstreamAlarm: () => "Raised if PostgreSQL lacks a part of the log",
  },
  missing: (node) => `${node}: readings missing`, clockAlarm: (node) => `${node}: clock not set, or ahead`,
  disk: () => "The broker's disk failed a write",
  fault: (node, output) => `${node}: output ${output} cannot be switched`,
  versionAlarm: (node) => (node ? `${node}: other version than most boards` : "Boards run different versions"),
  upstreamAlarm: () => "PostgreSQL lacks a part of the log",
  otherVersion: "other version", otherVersions: (names, most) => `Other version than most boards, which run ${most}: ${names}.`,
  loginTitle: "Log in to see this page", loginText: "Without a login it opens only on the broker's own machine.", loginOnly: "The broker shows it to nobody without a login.",
  deniedTitle: "No permission to read",
  deniedText: (user) => `User ${user} may not read the log and the boards. Log in as another user.`,
  noUsersTitle: "You cannot see this page from here",
  noUsersText: "The broker has no users yet. Create one with “humidor user add --role admin NAME”, or set HUMIDOR_HTTP_GUESTS=read on the broker.",
  name: "User name", password: "Password", login: "Log in", logout: "Log out",
  loginWrong: "Wrong user name or password. After several attempts, wait a minute before the next one.", loginBusy: "Too many logins at once. Wait a minute, then try again.",
  loginFailed: (reason) => `Could not log in: ${reason}`,
  metrics: "Metrics", brokerVersion: (version, revision) => `humidor ${version}${revision ? ` (${revision.slice(0, 12)})` : ""}`,
  times: (zone) => `Times in ${zone}`,
  boardOffline: (node) => `Board ${node} is offline`, boardOnline: (node) => `Board ${node} is online`,
  sensorStale: (name) => `No new readings from ${name}`, alarmRaised: (name, detail) => `Alarm ${name} raised: ${detail}`,
  unconfirmed: "no answer from the board",
  switchFailed: (reason) => `Could not switch the output: ${reason}`,
  forget: "Remove", forgetAsk: (node) => `Delete board ${node} with all its readings for good?`,
  forgetFailed: (reason) => `Could not remove the board: ${reason}`, isOnline: "it is online; stop it first",
  noAnswer: "no answer", notAllowed: "not allowed", noOutput: "the board no longer has it",
  refused: (status) => `the broker answered with error ${status}`,
};

/** The causes of failed reads, by the word in the board's health message. */
const CAUSES = {
  "stuck-low": "신호선이 낮은 상태로 고정", "no-response": "응답 없음", short: "응답이 짧음", long: "응답이 긺", sequence: "신호 순서 오류",
  pulse: "펄스 길이 오류", gap: "펄스 간격 오류", checksum: "체크섬 오류", "all-zero": "모두 0", implausible: "불가능한 값",
  stale: "시작 직후의 이전 값", unconfirmed: "확인되지 않은 값", weak: "불분명한 신호", line: "핀 사용 불가",
};

const KOREAN_PULL_UP = "풀업 저항(데이터와 VCC 사이 4.7~10 kΩ)";
const KOREAN_ADVICE = {
  "no-response": `센서가 응답하지 않습니다. 배선(VCC, GND, 데이터), ${KOREAN_PULL_UP}, HUMIDOR_SENSORS의 핀과 모델을 확인해야 합니다.`,
  "stuck-low": `데이터 선이 낮은 상태로 고정되어 있습니다. ${KOREAN_PULL_UP}, HUMIDOR_SENSORS의 핀, GND와의 단락 여부를 확인해야 합니다.`,
  damaged: `센서 신호가 손상되어 도착합니다. ${KOREAN_PULL_UP}, 긴 케이블, 접촉 불량, 노이즈를 확인해야 합니다.`,
  gap: "보드가 바빠서 센서를 제때 읽지 못합니다. 프로세서를 많이 쓰는 프로그램이 있는지 확인해야 합니다.",
  "all-zero": "센서가 0만 보냅니다. 전원(VCC, GND)을 확인해야 합니다.",
  implausible: "센서가 해당 모델로는 측정할 수 없는 값을 보냅니다. HUMIDOR_SENSORS의 모델을 확인해야 합니다.",
  unconfirmed: `읽을 때마다 값이 너무 다릅니다. 전원, ${KOREAN_PULL_UP}, 케이블 길이를 확인해야 합니다.`,
  line: "보드가 센서의 핀을 사용할 수 없습니다. 원인은 보드의 로그에 있습니다.",
  other: `센서를 읽지 못합니다. 배선(VCC, GND, 데이터), ${KOREAN_PULL_UP}, HUMIDOR_SENSORS의 핀을 확인해야 합니다.`,
};

/** What a board reports about itself: the text of its health message, and its translation. */
const COMPLAINTS = [
  [/^output `(.+?)` could not be switched (\S+): .*$/, "출력 전환 실패: $1"],
  [/^the outbox cannot write: .*$/, "전송 대기 측정값을 저장하지 못합니다"],
  [/^the outbox is more than half full \((\d+) of (\d+) readings\).*$/, "전송 대기 공간이 절반 넘게 찼습니다 ($1/$2). 가득 차면 오래된 측정값부터 유실됩니다"],
  [/^no broker for (\d+) s$/, "$1초 동안 브로커에 연결하지 못했습니다"],
  [/^no broker for (\d+) min$/, "$1분 동안 브로커에 연결하지 못했습니다"],
  [/^the broker has acknowledged nothing for .*$/, "브로커가 측정값 수신을 확인하지 않습니다"],
  [/^the broker accepts connections and closes them: .*$/, "브로커가 연결을 받은 뒤 끊습니다. 다른 보드가 같은 ID를 쓰거나(보드마다 HUMIDOR_NODE를 다르게 설정) 브로커가 계속 다시 시작되는 중입니다"],
  [/^no connection has lasted for .*$/, "브로커 연결이 유지되지 않습니다"],
  [/^the broker ends the connection at the subscription to (\S+), .*commands do not arrive$/, "브로커가 $1 구독을 거부해 명령을 받지 못합니다"],
  [/^the broker ends the connection at the subscription to (\S+), so it is left out$/, "브로커가 $1 구독을 거부합니다"],
  [/^no subscription to (\S+): commands do not arrive$/, "$1 구독이 거부되어 명령을 받지 못합니다"],
];

const korean = {
  skip: "측정값으로 건너뛰기", sensors: "센서", boards: "보드", alarms: "경보",
  empty: "아직 저장된 측정값이 없습니다. 첫 측정값이 들어오면 자동으로 표시됩니다.",
  firstUser: "보드에는 사용자가 필요합니다. 브로커에서 다음을 실행합니다:", firstUserMaybe: "보드에는 사용자가 필요합니다. 아직 없으면 브로커에서 다음을 실행합니다:",
  firstUserThere: (user) => `보드는 ${user} 사용자와 그 비밀번호로 로그인합니다.`,
  firstLocal: (port) => `브로커가 자기 기기에서만 MQTT를 받으므로 다른 기기의 보드는 연결할 수 없습니다. 브로커에 HUMIDOR_MQTT_LISTEN=0.0.0.0:${port} 설정을 추가하고 다시 시작해야 합니다.`,
  firstBoard: "헤더 핀 7에 DHT22를 연결한 보드를 시작합니다. Docker가 있는 Raspberry Pi에서 다음을 실행합니다:",
  firstOther: "Orange Pi에는 --device /dev/gpiochip1과 -e HUMIDOR_BOARD=orange-pi-zero-3 또는 orange-pi-zero도 필요합니다.",
  brokerAddress: "브로커-주소", copy: "복사", copied: "복사했습니다", selected: "선택했습니다. 키보드로 복사해야 합니다",
  noBoards: "아직 상태를 보고한 보드가 없습니다. 보드가 보고하면 자동으로 표시됩니다.",
  search: "센서와 보드 검색", unmatched: "일치하는 센서가 없습니다.", back: "↑ 센서", move: "이동과 확대",
  boardTable: "보드 목록",
  clocks: (boards) => `시계 미설정: ${boards}. 측정 시각이 정확하지 않을 수 있습니다.`,
  topic: "토픽", more: (series) => `다른 기기의 값 ${count(series)}개가 더 있습니다. 토픽을 검색하면 볼 수 있습니다.`, value: "값", refusals: "거부된 클라이언트", refusedChip: "거부",
  refusedWhen: (address, when, times) => `${address}에서, ${when}${times > 1 ? `, ${count(times)}회` : ""}`,
  refusal: (client) => refusalText(client, {
    "no-login": () => "사용자를 보내지 않았습니다. 보드의 HUMIDOR_BROKER에 mqtt://사용자@호스트를, HUMIDOR_PASSWORD에 비밀번호를 설정해야 합니다.",
    "wrong-password": (user) => `“${client.user}” 사용자의 비밀번호가 올바르지 않습니다. 보드의 HUMIDOR_PASSWORD를 고치거나 ${client.of_setting ? "브로커의 HUMIDOR_PASSWORD를 고칩니다." : `브로커에서 새로 설정합니다: humidor user passwd ${user}`}`,
    "unknown-user": (user) => isNear(client) ? `“${client.user}” 사용자가 없습니다. “${client.fleet.name}” 사용자라면 보드의 HUMIDOR_BROKER를 고쳐야 합니다.`
      : `“${client.user}” 사용자가 없습니다. 보드의 HUMIDOR_BROKER를 고${user === "NAME" ? "쳐야 합니다." : `치거나 브로커에 사용자를 추가합니다: humidor user add --role fleet ${user}`}`,
    "wrong-node": (user) => `비밀번호는 맞지만 “${client.user}” 사용자는 ${client.node} 이름으로 발행할 수 없습니다. ${client.role === "node" ? `보드에 HUMIDOR_NODE=${user} 설정을 추가하거나` : "보드에서"} 모든 보드의 사용자${client.fleet.exists ? `(${client.fleet.name})로 로그인합니다.` : `로 로그인합니다. 브로커에서 추가: humidor user add --role fleet ${client.fleet.name}`}`,
    "unfit-name": () => `이 클라이언트 ID 또는 “${client.user}” 사용자에는 규칙을 적용할 수 없습니다. 보드에서 다른 이름을 사용해야 합니다.`,
  }),
  live: "실시간", wait: "연결 중…",
  sum: (sensors, boards) => `센서 ${count(sensors)}개 · 온라인 보드 ${count(boards)}개`,
  sumLost: (sensors) => `센서 ${count(sensors)}개 · 보드 상태 알 수 없음`,
  temperature: "온도", humidity: "습도",
  lost: "연결이 끊겼습니다. 다시 연결하고 있습니다…", unconnected: "알 수 없음", alarm: "경보",
  good: "정상", stale: "갱신 지연", offline: "보드 오프라인", unset: "시계 미설정", ahead: "시계 빠름", none: "측정값 없음", noneYet: "아직 측정값 없음",
  noReading: (cause, failed) => `${adviceFor(KOREAN_ADVICE, cause)} 최근 1시간 읽기 실패: ${failed}회.`, asOf: (when) => `· ${when}`,
  lostNumbers: (series) => `저장하지 않은 다른 기기의 값: ${count(series)}개`, otherTopics: "다른 토픽",
  nearNumber: (came, meant) => `받은 값: ${came}. 숫자가 아니라서 저장하지 않았습니다. 저장되는 형식: ${meant}`, occurred: (times) => `${times}회`,
  leftOut: "저장할 수 없는 숫자가 있습니다: NaN, 너무 큰 수, 중복되거나 너무 긴 이름, 너무 깊은 중첩, 너무 많은 값.",
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
  board: "보드", state: "상태", outbox: "전송 대기", dropped: "유실", errors: "정상 측정(1시간)", time: "시각", inputs: "입력",
  outputs: "출력", version: "버전", 
  online: (since) => (since ? `${since} 동안 온라인` : "온라인"), gone: (since) => (since ? `${since} 동안 오프라인` : "오프라인"),
  unknown: () => "알 수 없음", readingsOnly: "측정값만 수신, 상태 없음", lastKnown: (status) => `알 수 없음 (마지막 상태: ${status})`,
  failed: "보드 시작 이후 읽기 실패:",
  causes: CAUSES,
  memory: "메모리에만 저장", on: "켜짐", off: "꺼짐", raised: "발생", normal: "정상", cleared: "해제", alarmHistory: "이력",
  unreported: "아직 보고 없음", removed: (name) => `삭제된 센서: ${name}. 대신 다른 센서를 표시합니다.`,
  threshold: (sensor, quantity, value, side, limit) => `${sensor}: ${quantity} ${value}, 한계 ${side} ${limit}`,
  silent: (sensor, limit) => `${sensor}: ${limit} 동안 측정값 없음`,
  if: {
    threshold: (sensor, quantity, side, limit) => `${sensor}: ${quantity} 한계 ${side} ${limit}`,
    silent: (sensor, limit) => `${sensor}: ${limit} 동안 측정값이 없으면 발생`,
    missing: (node) => `${node}: 누락된 측정값이 있으면 발생`, clockAlarm: (node) => `${node}: 시계가 설정되지 않았거나 빠르면 발생`,
    disk: () => "브로커 디스크에 쓰지 못하면 발생",
    fault: (node, output) => `${node}: 출력 ${output} 전환에 실패하면 발생`,
    versionAlarm: (node) => (node ? `${node}: 대부분의 보드와 버전이 다르면 발생` : "보드마다 버전이 다르면 발생"),
    upstreamAlarm: () => "PostgreSQL에 전송되지 않은 데이터가 있으면 발생",
  },
  missing: (node) => `${node}: 누락된 측정값 있음`, clockAlarm: (node) => `${node}: 시계가 설정되지 않았거나 빠름`,
  disk: () => "브로커 디스크에 쓰지 못함",
  fault: (node, output) => `${node}: 출력 ${output} 전환 실패`,
  versionAlarm: (node) => (node ? `${node}: 대부분의 보드와 버전이 다름` : "보드마다 버전이 다름"),
  upstreamAlarm: () => "PostgreSQL에 아직 전송되지 않은 데이터가 있음",
  otherVersion: "다른 버전", otherVersions: (names, most) => `대부분의 보드(${most})와 버전이 다른 보드: ${names}.`,
  loginTitle: "이 페이지를 보려면 로그인해야 합니다", loginText: "로그인하지 않으면 브로커가 실행 중인 기기에서만 볼 수 있습니다.", loginOnly: "이 브로커는 로그인한 사용자에게만 페이지를 보여 줍니다.",
  deniedTitle: "읽기 권한이 없습니다",
  deniedText: (user) => `${user} 사용자에게는 측정값과 보드를 볼 권한이 없습니다. 다른 사용자로 로그인해야 합니다.`,
  noUsersTitle: "여기에서는 이 페이지를 볼 수 없습니다",
  noUsersText: "브로커에 아직 사용자가 없습니다. “humidor user add --role admin 이름” 명령으로 사용자를 추가하거나 브로커에 HUMIDOR_HTTP_GUESTS=read를 설정해야 합니다.",
  name: "사용자 이름", password: "비밀번호", login: "로그인", logout: "로그아웃",
  loginWrong: "사용자 이름 또는 비밀번호가 올바르지 않습니다. 여러 번 틀리면 1분 후에 다시 시도해야 합니다.", loginBusy: "동시에 로그인하는 사용자가 너무 많습니다. 1분 후에 다시 시도해야 합니다.",
  loginFailed: (reason) => `로그인하지 못했습니다: ${reason}`,
  metrics: "메트릭", brokerVersion: english.brokerVersion,
  times: (zone) => `시간대: ${zone}`,
  boardOffline: (node) => `${node} 보드가 오프라인 상태입니다`, boardOnline: (node) => `${node} 보드가 온라인 상태입니다`,
  sensorStale: (name) => `${name} 센서에서 새 측정값이 들어오지 않습니다`, alarmRaised: (name, detail) => `${name} 경보가 발생했습니다: ${detail}`,
  unconfirmed: "보드 응답 없음",
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
// Never rounded up to 100 %: one failed read in a thousand is not none.
const shares = new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 1, roundingMode: "trunc" });
const signed = new Intl.NumberFormat(locale, { minimumFractionDigits: 1, maximumFractionDigits: 1, signDisplay: "always" });
// Phrases such as "5 min. ago" are in the page's language, even where the locale is a third one.
const relative = new Intl.RelativeTimeFormat(isKorean ? "ko" : "en", { numeric: "always", style: "short" });
const clock = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium" });
/** The minus sign U+2212, which is as wide as the plus sign, for the hyphen of most locales. */
const minus = (text) => text.replaceAll("-", "−");

export const number = (value) => (value == null ? "–" : minus(one.format(value)));
const formats = new Map();
/** Sizes of numbers that are written out; others get an exponent. */
const WRITTEN_OUT = [1e-4, 1e15];
/** A number of any size, with every digit that tells it from all others: a meter's last one counts. */
export function value(number) {
  if (number == null) return "–";
  const digits = String(number).replace(/e.*$|[^\d.e]/g, "").replace(/^0?\.?0*/, "").replace(".", "").length || 1;
  const size = Math.abs(number);
  const notation = size === 0 || (size >= WRITTEN_OUT[0] && size < WRITTEN_OUT[1]) ? "standard" : "scientific";
  const key = `${digits} ${notation}`;
  if (!formats.has(key)) formats.set(key, new Intl.NumberFormat(locale, { maximumSignificantDigits: Math.min(digits, 17), notation }));
  return minus(formats.get(key).format(number));
}
/** A mean of numbers from `lowest` to `highest`, to a hundredth of their difference or finer. */
export function mean(mean, lowest, highest) {
  const step = 10 ** (Math.floor(Math.log10(highest - lowest)) - 2);
  return step > 0 ? value(Number((Math.round(mean / step) * step).toPrecision(15))) : value(lowest);
}
export const percent = (share) => shares.format(share);
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

/** As [`ago`]; less than two seconds, and up to `ahead` ms in the future, are "now": clocks differ by so much. */
export const elapsed = (ms, ahead) => (ms >= -ahead && ms < 1500 ? t.now : ago(ms));

/** A duration in the largest unit that fits, with up to `digits` decimals: "10 min". */
export function length(ms, digits = 1) {
  const seconds = ms / 1000;
  const [unit, size] = UNITS.find(([, size]) => seconds >= size) ?? UNITS[5];
  return new Intl.NumberFormat(isKorean ? "ko" : "en", { style: "unit", unit, maximumFractionDigits: digits, roundingMode: "trunc" }).format(seconds / size);
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

const UNITS_OF = { temperature: "°C", humidity: "%" };

/**
 * What nobody sees, or what changes how the others are shown: controls, marks and overrides of bidirectional text, and what
 * Unicode calls default ignorable. Joiners and variation selectors belong to some scripts and to emoji, behind such a
 * character. The same rule as of `humidor export` on a terminal (`src/visible_text.rs`).
 */
const HIDDEN = /[\p{Cc}\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]|(?<=^|[\0-\x7f])[\u200c\u200d\ufe00-\ufe0f]/gu;
const ESCAPES = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/** A text of the network in which such characters are written out: `\u{202e}`. */
export const visible = (text) => text.replace(HIDDEN, (found) => ESCAPES[found] ?? `\\u{${found.codePointAt(0).toString(16)}}`);

/** Longest name that is shown whole, in columns: four lines of a tile on a phone. */
const NAME_COLUMNS = 72;
const columns = (character) => (character < "\u1100" ? 1 : 2);

/** A name with its beginning and its end; the end of a topic tells more. */
export function shortened(name) {
  const characters = [...name];
  const take = (list, room) => {
    let used = 0;
    const end = list.findIndex((character) => (used += columns(character)) > room);
    return end < 0 ? list : list.slice(0, end);
  };
  if (take(characters, NAME_COLUMNS).length === characters.length) return name;
  const head = take(characters, NAME_COLUMNS / 3), tail = take(characters.reverse(), NAME_COLUMNS * 2 / 3 - 1);
  return `${head.join("")}…${tail.reverse().join("")}`;
}

/** What an alarm is about: the fault while it is raised, with the present value of its sensor, else what it waits for. */
export function alarmText({ raised, kind, node, sensor, quantity, side, limit, limit_ms: limitMs, output }, latest) {
  const name = sensor ? `${node} ${sensor}` : node;
  const unit = UNITS_OF[quantity];
  const texts = raised ? t : t.if;
  const value = latest?.[quantity], sign = side === "above" ? ">" : "<", least = `${number(limit)} ${unit}`;
  return {
    threshold: () => (raised || value != null
      ? t.threshold(name, t[quantity], `${number(value)} ${unit}`, sign, least) : texts.threshold(name, t[quantity], sign, least)),
    silent: () => texts.silent(name, length(limitMs)),
    gap: () => texts.missing(name),
    clock: () => texts.clockAlarm(name),
    disk: texts.disk,
    fault: () => texts.fault(node, output),
    version: () => texts.versionAlarm(node === "broker" ? null : node),
    upstream: texts.upstreamAlarm,
  }[kind]?.() ?? name;
}

/** Whether a user that is not there is up to two letters (added, left out, another) from the one of all boards, which is. */
function isNear({ user, fleet: { name, exists } }) {
  if (!exists || user.length > name.length + 2) return false;
  let row = [...name].map((_, at) => at + 1);
  row.unshift(0);
  for (const letter of user.toLowerCase()) {
    const next = [row[0] + 1];
    for (let at = 1; at < row.length; at++) {
      next.push(Math.min(row[at] + 1, next[at - 1] + 1, row[at - 1] + (letter === name[at - 1].toLowerCase() ? 0 : 1)));
    }
    row = next;
  }
  return row[row.length - 1] <= Math.min(2, name.length - 1);
}

/**
 * Why a client was refused, from `texts` by cause. They have commands, into which a name goes only where a shell takes it
 * for one: it comes from the network.
 */
function refusalText({ cause, user }, texts) {
  return texts[cause]?.(/^[\w.-]+$/.test(user) ? user : "NAME") ?? cause;
}

/** What a board reports about itself, in the page's language where it is known. */
export function complaint(text) {
  if (!isKorean) return text;
  const [pattern, translated] = COMPLAINTS.find(([pattern]) => pattern.test(text)) ?? [];
  return pattern ? text.replace(pattern, translated) : text;
}

/** Fills the texts of the static HTML in. */
export function fill() {
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t[element.dataset.t];
  for (const element of document.querySelectorAll("[data-l]")) {
    element.setAttribute("aria-label", t[element.dataset.l]);
    element.title = t[element.dataset.l];
  }
}
