// Boards whose version or revision differs from that of most boards, as the alarm `version` finds them.

import { byName } from "./state.js";
import { t, visible } from "./text.js";

const shown = (build) => [build.version, build.revision?.slice(0, 12)].filter(Boolean).join(" · ");
const keyOf = ({ version, revision }) => JSON.stringify([version, revision ?? null]);

/** What most boards run, and the names of those that do not; of several that as many run, the broker's own. */
export function otherVersions(boards, own) {
  const builds = [...boards.values()].filter((board) => board.health).map(({ node, health }) => ({ node, health, key: keyOf(health) }));
  const counts = new Map();
  for (const { key } of builds) counts.set(key, (counts.get(key) ?? 0) + 1);
  const most = Math.max(0, ...counts.values());
  const first = [...counts.keys()].filter((key) => counts.get(key) === most);
  const key = first.length === 1 ? first[0] : first.find((key) => own && key === keyOf(own));
  if (!key) return { most: "", nodes: new Set() };
  const nodes = builds.filter((build) => build.key !== key).map((build) => build.node).sort(byName);
  return { most: shown(builds.find((build) => build.key === key).health), nodes: new Set(nodes) };
}

/** Lists them, and returns their names. */
export function drawVersions(parent, boards, own) {
  const { most, nodes } = otherVersions(boards, own);
  parent.hidden = nodes.size === 0;
  if (nodes.size) parent.textContent = visible(t.otherVersions([...nodes].join(", "), most));
  return nodes;
}
