// Throughput and lag over the last minutes.

import { chart } from "./chart.js";
import { el, say } from "./dom.js";
import { hint } from "./hints.js";
import * as pulse from "./pulse.js";
import { count, rate, span } from "./words.js";

const LEAST_MS = 60_000; // a chart that has just begun is not stretched beyond this
const CHARTS = [
  { field: "events", title: "events a second", format: rate, colour: "var(--c1)", least: 10 },
  { field: "profiles", title: "profiles a second", format: rate, colour: "var(--c3)", least: 10 },
  { field: "waiting", title: "waiting", format: count, colour: "var(--c2)", least: 100 },
  { field: "delay", title: "delay", format: span, colour: "var(--c2)", least: 1 },
];

/** The charts: `{node, stop}`. `fields` says which of them. */
export function live(fields) {
  const cards = CHARTS.filter(({ field }) => fields.includes(field)).map(card);
  const stop = pulse.on(() => cards.forEach(({ update }) => update()));
  return { node: el("div", { class: "cards" }, cards.map(({ node }) => node)), stop };
}

function card({ field, title, format, colour, least }) {
  const words = (list) => {
    const known = list[0].points.map(([, value]) => value).filter((value) => value !== null);
    if (!known.length) return `${title}: nothing yet`;
    return `${title}: now ${format(known.at(-1))}, between ${format(Math.min(...known))} and ${format(Math.max(...known))} in the last minutes`;
  };
  const { node, update } = chart({ label: words, format, least, area: true });
  const value = el("b", {}, "–");
  const draw = () => {
    const points = pulse.samples.map((sample) => [sample.at, sample[field]]);
    const to = points.at(-1)[0], now = points.at(-1)[1];
    say(value, now === null ? "–" : format(now));
    update([{ name: "", colour, points }], Math.min(points[0][0], to - LEAST_MS), to);
  };
  return { node: el("section", { class: "sheet card" }, el("h3", {}, hint(field, title)), value, node), update: draw };
}
