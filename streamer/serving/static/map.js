// The map of interests: people with like interests lie close together. The table beside it tells the same.

import { asked } from "./asked.js";
import { $, el, say } from "./dom.js";
import { hint } from "./hints.js";
import { plane } from "./plane.js";
import * as route from "./route.js";
import { count, percent } from "./words.js";

const MOST = 2000; // people drawn
const EVERY_MS = 15_000;
const PALETTE = Array.from({ length: 7 }, (_, n) => `var(--c${n + 1})`);
const PEOPLE = 12; // named beside the map, of those whom a tag is the strongest interest of
const box = $("map");

let open = null; // { answer, plane, side, tag, map, colours, timer }

/** Show it, with the tag that the address names picked out. */
export function show({ query }) {
  if (!open) begin();
  pick(query.get("tag"), false);
}

export function refresh() {
  open.answer.ask();
}

export function close() {
  clearInterval(open.timer);
  open.answer.stop();
  open.plane.stop();
  open = null;
  box.replaceChildren();
}

function begin() {
  const drawing = plane({ person: (id) => route.go(route.userAddress(id)), tag: (tag) => pick(tag) });
  const side = el("div", { class: "side" }), sum = el("p", { class: "note" });
  const content = el("div", {}, sum, el("div", { class: "atlas" }, drawing.node, side));
  const answer = asked(`/v1/map?n=${MOST}`, {
    draw: (map) => {
      if (!map.points.length) return null;
      Object.assign(open, { map, colours: colours(map, open.colours) });
      say(sum, `${count(map.points.length)} of ${count(map.users)} people in memory, each a dot in the colour of the strongest interest. Click one to see the person, or an interest to pick out its people.`);
      redraw();
      return content;
    },
    nothing: "Nobody is known yet. Send events, and people appear here.",
    lines: 8,
  });
  box.replaceChildren(el("div", { class: "sheet" }, el("h2", {}, "Who is ", hint("map", "close to whom")), answer.node));
  open = { answer, plane: drawing, side, tag: null, map: null, colours: null, timer: setInterval(() => document.hidden || answer.ask(), EVERY_MS) };
  answer.ask();
}

/** Pick out a tag's people, or with the same tag again nobody's. */
function pick(tag, toggles = true) {
  open.tag = toggles && tag === open.tag ? null : tag;
  if (toggles) route.note("tag", open.tag);
  if (open.map) redraw();
}

function redraw() {
  const { plane: drawing, side, map, colours: colourOf, tag } = open;
  drawing.draw(map, colourOf, tag);
  const focused = side.contains(document.activeElement) ? document.activeElement.dataset.tag : null;
  side.replaceChildren(tag ? people(map, tag) : el("p", { class: "note" }, "Pick an interest to see its people."), tags(map, colourOf, tag));
  if (focused) side.querySelector(`[data-tag="${CSS.escape(focused)}"]`)?.focus();
}

/** A colour for each of the tags that most people like best. A tag keeps its colour as long as it is one of them. */
function colours({ points }, before) {
  const tops = new Map();
  for (const { top } of points) tops.set(top, (tops.get(top) ?? 0) + 1);
  const first = [...tops].sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1)).slice(0, PALETTE.length).map(([tag]) => tag);
  const kept = new Map(first.filter((tag) => before?.has(tag)).map((tag) => [tag, before.get(tag)]));
  const free = PALETTE.filter((colour) => ![...kept.values()].includes(colour));
  return new Map(first.map((tag) => [tag, kept.get(tag) ?? free.shift()]));
}

function people({ points }, tag) {
  const theirs = points.filter(({ top }) => top === tag);
  const link = ({ user_id: id }) => el("li", {}, el("a", { href: route.userAddress(id) }, id));
  return el("section", {}, el("h3", {}, `Most into ${tag} `, el("small", {}, count(theirs.length))),
    theirs.length ? el("ul", { class: "persons" }, theirs.slice(0, PEOPLE).map(link)) : el("p", { class: "note" }, "It is nobody's strongest interest here."));
}

function tags({ tags: all, points }, colourOf, chosen) {
  const tops = (tag) => points.filter(({ top }) => top === tag).length;
  const row = ({ tag, share, users }) => el("tr", {},
    el("th", { scope: "row" }, el("button", { type: "button", class: "pick", "data-tag": tag, "aria-pressed": String(tag === chosen), onclick: () => pick(tag) }, el("i", { "--colour": colourOf.get(tag) ?? "var(--c8)", "aria-hidden": "true" }), tag)),
    el("td", {}, percent(share, 1)), el("td", {}, count(users)), el("td", {}, count(tops(tag))));
  const heads = ["interest", hint("share", "share"), "people", hint("top", "strongest")];
  const table = el("table", {}, el("caption", { class: "unseen" }, "Interests on the map"),
    el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, [...all].sort((a, b) => b.share - a.share).map(row)));
  return el("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Interests on the map" }, table);
}
