// What to do while there is no reading: the command that starts a board, with this broker's address, ready to copy.

import { t } from "./text.js";
import { make } from "./view.js";

const $ = (id) => document.getElementById(id);

/** The broker's address for a board: the one in the page's own address, unless that names this machine only. */
function brokerHost(about) {
  const host = location.hostname;
  const isOwn = host === "localhost" || host.endsWith(".localhost") || host.startsWith("127.") || host === "[::1]";
  return isOwn ? about.mqtt?.host ?? t.brokerAddress : host;
}

/** Fills the texts of the empty page in. */
export function fillFirst(about) {
  const { mqtt, boards } = about;
  const port = mqtt && mqtt.port !== 1883 ? `:${mqtt.port}` : "";
  // Without users only clients on the broker's own machine are let in, unless anyone is.
  const needsUser = about.login || !mqtt?.open;
  $("firstLocal").hidden = !mqtt?.local;
  $("firstLocal").textContent = t.firstLocal(mqtt?.port ?? 1883);
  $("firstUser").hidden = !needsUser;
  $("firstUserText").textContent = boards.exists ? t.firstUserThere(boards.name) : boards.exists === false ? t.firstUser : t.firstUserMaybe;
  $("firstUserLine").textContent = boards.exists ? "" : `humidor user add --role fleet ${boards.name}`;
  const options = [
    "docker run -d", "--name humidor", "--restart unless-stopped",
    "--device /dev/gpiochip0", "--group-add $(stat -c %g /dev/gpiochip0)", "-v humidor-outbox:/data",
    "-e HUMIDOR_NODE=board-1", `-e HUMIDOR_BROKER=mqtt://${needsUser ? `${boards.name}@` : ""}${brokerHost(about)}${port}`,
    ...(needsUser ? [`-e HUMIDOR_PASSWORD=${t.password.toUpperCase().replaceAll(" ", "-")}`] : []), "-e HUMIDOR_SENSORS=hall=dht22@7 humidor node",
  ];
  $("boardLine").replaceChildren(...options.flatMap((option, index) => [index ? " " : "", make("span", "", option)]));
  $("copy").onclick = copy;
}

/** Copies the command. Pages over plain HTTP have no clipboard, but may copy a selection. */
async function copy() {
  const line = $("boardLine");
  let copied = true;
  try {
    await navigator.clipboard.writeText(line.textContent);
  } catch {
    getSelection().selectAllChildren(line);
    copied = document.execCommand("copy");
  }
  $("copy").textContent = copied ? t.copied : t.selected;
}
