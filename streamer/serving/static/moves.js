// How a person's interests moved: the versions of the profile that the worker remembers.

import { asked } from "./asked.js";
import { chart } from "./chart.js";
import { el, table } from "./dom.js";
import { clock, percent } from "./words.js";

const LINES = 6; // more cannot be told apart
const EVERY_S = 5;
const ROWS = 12; // of the table, evenly over the time

/** The lines. */
export function moves(id) {
  const lines = chart({ label: inWords, format: (share) => percent(share), least: 0.1, steps: true, names: true });
  const numbers = el("details", { class: "numbers" }, el("summary", {}, "As a table"));
  const box = asked(`/v1/users/${encodeURIComponent(id)}/history`, {
    draw: ({ versions }) => (versions.length > 1 ? drawn(versions) : null),
    nothing: "This worker has not published the profile twice yet. As soon as it has, lines appear here.",
  });
  function drawn(versions) {
    const tags = strongest(versions);
    lines.update(series(versions, tags), versions[0].published_at, Math.max(Date.now(), versions.at(-1).published_at));
    numbers.replaceChildren(numbers.firstChild, tabled(versions, tags));
    return el("div", {}, lines.node, numbers);
  }
  return {
    node: el("section", { class: "moves" }, el("h3", {}, "How they moved"), box.node),
    update: () => box.ask({ every_s: EVERY_S }),
    refresh: box.ask,
    stop: box.stop,
  };
}

/** The tags with most to show: the strongest ones of today, then those that were strongest at some time. */
function strongest(versions) {
  const most = new Map();
  for (const { interests } of versions) for (const { tag, share } of interests) most.set(tag, Math.max(most.get(tag) ?? 0, share));
  const today = versions.at(-1).interests.slice(0, LINES / 2).map(({ tag }) => tag);
  const ever = [...most].sort(([, a], [, b]) => b - a).map(([tag]) => tag);
  return [...new Set([...today, ...ever])].slice(0, LINES);
}

const share = ({ interests }, tag) => interests.find((one) => one.tag === tag)?.share ?? 0;

const series = (versions, tags) => tags.map((tag, n) => ({
  name: tag, colour: `var(--c${n + 1})`, points: versions.map((version) => [version.published_at, share(version, tag)]),
}));

function inWords(lines) {
  const moved = lines.map(({ name, points }) => `${name} from ${percent(points[0][1])} to ${percent(points.at(-1)[1])}`);
  return `Share of interests over time: ${moved.join(", ")}.`;
}

function tabled(versions, tags) {
  const step = Math.max(1, Math.ceil(versions.length / ROWS));
  const rows = versions.filter((_, n) => (versions.length - 1 - n) % step === 0).reverse();
  const length = versions.at(-1).published_at - versions[0].published_at;
  return table("Share of interests by version", ["version", "published", ...tags],
    rows.map((version) => [String(version.version), clock(version.published_at, length), ...tags.map((tag) => percent(share(version, tag)))]));
}
