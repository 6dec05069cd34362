// The line about the copy of the log in PostgreSQL: how far it is, and what keeps it.

import { count, length, visible } from "./text.js";

/** Entries wait for less in normal operation, ms. */
const BEHIND_MS = 10_000;

const english = {
  between: "; ",
  upToDate: "up to date", connecting: "connecting",
  behind: (lag, time) => `${count(lag)} ${lag === 1 ? "entry" : "entries"} behind, the oldest for ${time}`,
  filling: "stored readings are being sent again", failing: "it takes nothing at present",
  awaited: "until then readings are not acknowledged, and boards keep them",
  refused: (rows) => `${count(rows)} ${rows === 1 ? "row" : "rows"} refused: table humidor.refused has them`,
  overflowed: (entries) => `${count(entries)} ${entries === 1 ? "entry" : "entries"} left the full queue`,
};

const korean = {
  between: ". ",
  upToDate: "최신 상태입니다", connecting: "연결하고 있습니다",
  behind: (lag, time) => `${count(lag)}건이 아직 전송되지 않았습니다. 가장 오래된 것은 ${time} 전입니다`,
  filling: "저장된 측정값을 다시 보내고 있습니다", failing: "지금은 저장하지 못합니다",
  awaited: "저장될 때까지 수신을 확인하지 않으며, 보드가 측정값을 보관합니다",
  refused: (rows) => `${count(rows)}건이 거부되었습니다. humidor.refused 테이블에 있습니다`,
  overflowed: (entries) => `대기열이 가득 차 ${count(entries)}건이 밀려났습니다`,
};

/** Draws the line; what is wrong stands out. */
export function drawUpstream(parent, status) {
  const t = document.documentElement.lang === "ko" ? korean : english;
  const isLate = status.lag > 0 && status.lag_ms >= BEHIND_MS;
  const parts = [
    isLate ? t.behind(status.lag, length(status.lag_ms, 0)) : !status.connected ? !status.failing && t.connecting : !status.filling && t.upToDate,
    status.filling && t.filling,
    status.failing && t.failing,
    status.failing && status.acknowledge === "upstream" && t.awaited,
    status.refused > 0 && t.refused(status.refused),
    status.overflowed > 0 && t.overflowed(status.overflowed),
  ];
  const text = `PostgreSQL: ${parts.filter(Boolean).join(t.between)}.`;
  parent.className = isLate || status.failing || status.filling || status.refused || status.overflowed ? "late" : "quiet";
  parent.hidden = false;
  if (parent.firstChild?.textContent !== text) parent.replaceChildren(text);
  const known = parent.querySelector("code");
  if (!status.error) known?.remove();
  else if (known) known.textContent = visible(status.error);
  else {
    const error = document.createElement("code");
    error.lang = "en";
    error.className = "error";
    error.textContent = visible(status.error);
    parent.append(" ", error);
  }
}
