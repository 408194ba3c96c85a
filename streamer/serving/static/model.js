// How good the model is: judged on what people really took, before it learned from it, beside the simplest rival.

import { asked } from "./asked.js";
import { chart } from "./chart.js";
import { $, el, table } from "./dom.js";
import { hint } from "./hints.js";
import { count, expert, percent } from "./words.js";

const EVERY_MS = 5000;
const ENOUGH = 10; // judged events of a minute: the rate of fewer jumps about
const box = $("model");

let open = null;

/** Show it. */
export function show() {
  if (open) return;
  const lines = chart({ label: inWords, format: (rate) => percent(rate), least: 0.1, names: true });
  const answer = asked("/v1/quality", {
    draw: (quality) => (quality.cold.events + quality.warm.events ? drawn(quality, lines) : null),
    nothing: "Not judged yet. As soon as people take items that the model could have known, its hits are counted here.",
    lines: 8,
  });
  box.replaceChildren(el("div", { class: "sheet" }, el("h2", {}, "Does it guess right?"), answer.node));
  answer.ask();
  open = { answer, timer: setInterval(() => document.hidden || answer.ask(), EVERY_MS) };
}

export function refresh() {
  open.answer.ask();
}

export function close() {
  clearInterval(open.timer);
  open.answer.stop();
  open = null;
  box.replaceChildren();
}

/** Scores of both groups as one: means, weighted by their events. */
function together(one, other) {
  const events = one.events + other.events;
  const mean = (name) => (events ? (one[name] * one.events + other[name] * other.events) / events : 0);
  return { ...Object.fromEntries(Object.keys(one).map((name) => [name, mean(name)])), events };
}

function drawn(quality, lines) {
  const all = together(quality.cold, quality.warm);
  const minutes = quality.points.map(({ at, cold, warm }) => [at, together(cold, warm)]).filter(([, { events }]) => events >= ENOUGH);
  if (minutes.length > 1) lines.update(series(minutes), minutes[0][0], minutes.at(-1)[0]);
  return el("div", {}, headline(all),
    el("div", { class: "columns" },
      el("section", {}, el("h3", {}, "Hits by minute"), minutes.length > 1 ? lines.node : el("p", { class: "note" }, `Lines appear here after two minutes with at least ${ENOUGH} judged events each.`)),
      el("section", {}, el("h3", {}, "Who has how much ", hint("experts", "say")), weights(quality.weights))),
    el("section", {}, el("h3", {}, "In numbers"), numbers(quality, all)),
    el("p", { class: "made note" }, `model “${quality.model}” · since this worker started`));
}

function headline({ events, hit_rate: hits, popularity_hit_rate: popular }) {
  const times = popular > 0 ? (hits / popular).toFixed(1) : null;
  return el("div", { class: "headline" },
    el("p", { class: "big" }, el("b", {}, percent(hits, 1)), hint("hits", "hits")),
    el("p", { class: "big rival" }, el("b", {}, percent(popular, 1)), hint("popularity", "by popularity alone")),
    el("p", { class: "lead" }, `Of the last ${count(events)} things that people took, and that were used to judge, ${percent(hits, 1)} stood among the first 20 of the list that the model would have shown.`,
      times ? ` A list of what is popular gets ${percent(popular, 1)}: the model is right ${times} times as often.` : ""));
}

const series = (minutes) => [
  { name: "model", colour: "var(--c1)", points: minutes.map(([at, { hit_rate: rate }]) => [at, rate]) },
  { name: "popularity", colour: "var(--c8)", points: minutes.map(([at, { popularity_hit_rate: rate }]) => [at, rate]) },
];

function inWords(lines) {
  return `Hits by minute: ${lines.map(({ name, points }) => `${name} from ${percent(points[0][1])} to ${percent(points.at(-1)[1])}`).join(", ")}.`;
}

function weights(all) {
  const sorted = Object.entries(all).sort(([, a], [, b]) => b - a);
  if (!sorted.length) return el("p", { class: "note" }, "This worker looks after nobody yet.");
  const [[, most]] = sorted;
  const row = ([name, weight]) => el("li", {}, el("span", {}, expert(name)), el("i", { "--share": weight / (most || 1), "aria-hidden": "true" }), el("span", { class: "value" }, weight.toFixed(2)));
  return el("ul", { class: "experts" }, sorted.map(row));
}

function numbers({ cold, warm, cold_below: few }, all) {
  const row = (name, { events, hit_rate, popularity_hit_rate, expected, log_loss, popularity_log_loss }) => [name, count(events), ...(events
    ? [percent(hit_rate, 1), percent(popularity_hit_rate, 1), percent(expected, 1), log_loss.toFixed(2), popularity_log_loss.toFixed(2)]
    : Array(5).fill("–"))];
  const heads = ["people with", "judged", hint("hits", "hits"), hint("popularity", "popularity's"), hint("expected", "expected"), hint("loss", "log loss"), "popularity's"];
  return table("Scores of the model by group of people", heads, [
    row(el("span", {}, `fewer than ${few} events `, hint("cold", "(newcomers)")), cold), row(`${few} events or more`, warm), row("everyone", all)]);
}
