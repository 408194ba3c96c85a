// What may come next, and why: the model's recommendations for one person.

import { asked } from "./asked.js";
import { el } from "./dom.js";
import { hint } from "./hints.js";
import { reason } from "./interests.js";
import * as items from "./items.js";
import { expert, expertsSay, percent } from "./words.js";

const SHOWN = 6;
const EVERY_S = 5; // a ranking costs the worker a millisecond or so: a busy person's needs no more

/** The recommendations. */
export function next(id) {
  const opened = new Set(); // items whose reasons are shown stay open when the list is drawn anew
  const box = asked(`/v1/users/${encodeURIComponent(id)}/recommendations?n=${SHOWN}`, {
    draw: ({ items: list }) => (list.length ? drawn(list, opened) : null),
    nothing: "Nothing to offer yet: the model needs a catalogue and some events to learn from.",
    lines: 6,
  });
  const title = el("h3", { class: "ends-apart" }, "Likely next", hint("chance", "chance"));
  return {
    node: el("section", { class: "next" }, title, box.node),
    update: () => box.ask({ every_s: EVERY_S }),
    refresh: box.ask,
    stop: box.stop,
  };
}

function drawn(list, opened) {
  const most = Math.max(...list.map(({ score }) => score));
  const node = el("ol", {}, list.map((one) => offer(one, most, opened)));
  items.fill(node);
  return node;
}

function offer(one, most, opened) {
  const shares = Object.entries(one.experts).sort(([, a], [, b]) => b - a).filter(([, share]) => share >= 0.01);
  const loudest = shares.slice(0, 2).map(([name]) => name), [because] = one.because;
  const summary = el("summary", {},
    el("span", { class: "title" }, one.title || items.name(one.item_id)), el("span", { class: "value" }, percent(one.score, 1)),
    el("span", { class: "thin", "aria-hidden": "true", "--share": one.score / most }),
    el("span", { class: "note says" }, expertsSay(loudest, because ? items.name(because.item_id) : null)));
  const details = el("details", { open: opened.has(one.item_id) }, summary,
    el("h4", {}, hint("experts", "Who speaks for it")), el("ul", { class: "experts" }, shares.map(voice)),
    one.because.length ? [el("h4", {}, "What led to it"), el("ul", { class: "why" }, one.because.map(reason))] : null);
  details.addEventListener("toggle", () => (details.open ? opened.add(one.item_id) : opened.delete(one.item_id)));
  return el("li", {}, details);
}

const voice = ([name, share]) => el("li", {}, el("span", {}, expert(name)), el("i", { "--share": share, "aria-hidden": "true" }), el("span", { class: "value" }, percent(share)));
