// Lines over time as SVG: colours and sizes are the style sheet's. Drawn in a box of 1000 × 100 that is stretched to its place.

import { el, say, set } from "./dom.js";
import { clock } from "./words.js";

const WIDE = 1000, HIGH = 100;

/** A chart: `{node, update(series, from, to)}`. A series is `{name, colour, points: [[at, value], …]}`, sorted; a null value is a gap.
 *
 *  `label(series)` says in words what it shows, `format(value)` writes a value, `least` is the lowest top of its scale.
 *  With `steps` a value holds until the next. With `area` the first series is filled. With `names` lines carry their names. */
export function chart({ label, format, least = 1, steps = false, area = false, names = false }) {
  const svg = el("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const top = el("span", { class: "top-value" }), readout = el("output", { class: "readout", hidden: true, "aria-hidden": "true" });
  const rule = el("i", { class: "rule", hidden: true }), ends = el("div", { class: "ends", "aria-hidden": "true" });
  const start = el("span"), end = el("span");
  const plot = el("div", { class: "plot", role: "img" }, svg, rule, readout, top, names ? ends : null);
  const node = el("div", { class: names ? "chart named" : "chart" }, plot, el("div", { class: "axis", "aria-hidden": "true" }, start, end));
  let shown = null;

  function update(series, from, to) {
    const most = scale(Math.max(least, ...series.flatMap(({ points }) => points.map(([, value]) => value ?? 0))));
    const x = (at) => ((at - from) / (to - from || 1)) * WIDE, y = (value) => HIGH - (value / most) * HIGH;
    shown = { series, from, to, y };
    svg.replaceChildren(...series.flatMap(({ points, colour }, at) => {
      const path = trace(points, x, y, steps ? to : null);
      return [area && at === 0 ? el("path", { class: "fill", d: filled(points, x, y), "--colour": colour }) : null, el("path", { class: "stroke", d: path, "--colour": colour })];
    }).filter(Boolean));
    if (names) ends.replaceChildren(...apart(series.map((one) => ({ ...one, at: y(latest(one.points) ?? 0) }))).map(named));
    say(top, format(most));
    say(start, clock(from, to - from));
    say(end, to > Date.now() - 60_000 ? "now" : clock(to, to - from));
    set(plot, { "aria-label": label(series) });
  }

  plot.addEventListener("pointermove", (event) => shown && point(event));
  plot.addEventListener("pointerleave", () => { rule.hidden = readout.hidden = true; });

  function point(event) {
    const { left, width } = svg.getBoundingClientRect();
    const part = Math.min(1, Math.max(0, (event.clientX - left) / width));
    const at = shown.from + part * (shown.to - shown.from);
    const values = shown.series.map((one) => ({ ...one, value: valueAt(one.points, at, steps) })).filter(({ value }) => value !== null);
    rule.hidden = readout.hidden = !values.length;
    set(rule, { "--at": part });
    set(readout, { "--at": part, class: part > 0.6 ? "readout left" : "readout" });
    readout.replaceChildren(el("b", {}, clock(at, shown.to - shown.from)),
      ...values.sort((a, b) => b.value - a.value).map(({ name, colour, value }) => el("span", { "--colour": colour }, `${name} ${format(value)}`)));
  }

  return { node, update };
}

function trace(points, x, y, until) {
  let path = "", open = false, last = 0;
  for (const [at, value] of points) {
    if (value === null) { open = false; continue; }
    const [left, top] = [x(at).toFixed(1), y(value).toFixed(2)];
    if (open && until !== null) path += `H${left}V${top}`;
    else path += `${open ? "L" : "M"}${left} ${top}`;
    [open, last] = [true, at];
  }
  return open && until !== null && last < until ? `${path}H${x(until).toFixed(1)}` : path;
}

function filled(points, x, y) {
  const known = points.filter(([, value]) => value !== null);
  if (known.length < 2) return "";
  return `${trace(known, x, y, null)}L${x(known.at(-1)[0]).toFixed(1)} ${HIGH}L${x(known[0][0]).toFixed(1)} ${HIGH}Z`;
}

/** The value shown at a time: the one before it with steps, else the nearest. */
function valueAt(points, at, steps) {
  const next = points.findIndex(([time]) => time > at);
  const [before, after] = next < 0 ? [points.at(-1), null] : [points[next - 1], points[next]];
  if (!after || (steps && before)) return before?.[1] ?? null;
  if (!before) return steps ? null : after[1];
  return at - before[0] < after[0] - at ? before[1] : after[1];
}

const latest = (points) => points.findLast(([, value]) => value !== null)?.[1];
const named = ({ name, colour, at }) => el("span", { "--colour": colour, "--at": at / HIGH }, name);

/** Names at the ends of their lines, moved so that none covers another. */
function apart(ends, gap = 8) {
  const sorted = ends.sort((a, b) => a.at - b.at);
  sorted.forEach((end, n) => { end.at = n ? Math.max(end.at, sorted[n - 1].at + gap) : end.at; });
  const over = sorted.length ? Math.max(0, sorted.at(-1).at - HIGH) : 0;
  for (let n = sorted.length - 1, low = HIGH; over && n >= 0; n--, low -= gap) sorted[n].at = Math.min(sorted[n].at, low);
  return sorted;
}

/** The next round number up: 1, 2 or 5 times a power of ten. */
function scale(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 3, 5, 10].map((step) => step * power).find((round) => round >= most * 0.999);
}
