// Nobody is chosen yet: what this is, how it goes, and what people like.

import { asked } from "./asked.js";
import { $, el } from "./dom.js";
import * as feed from "./feed.js";
import { hint } from "./hints.js";
import { live } from "./live.js";
import * as route from "./route.js";
import { count, percent } from "./words.js";

const TAGS = 12;
const EVERY_MS = 15_000;
const box = $("person");

let open = null; // what has to be stopped

/** Show it. */
export function show() {
  if (open) return;
  const charts = live(["events", "profiles", "delay"]);
  const likes = asked("/v1/map?n=100", { draw: ({ users, tags }) => (tags.length ? drawn(users, tags) : null), nothing: "Nobody is known yet. Send events, and interests appear here." });
  box.replaceChildren(welcome(), charts.node, el("section", { class: "sheet" }, el("h3", { class: "ends-apart" }, "What people like", el("a", { class: "aside", href: "#/map" }, "see the map")), likes.node));
  likes.ask();
  open = { charts, likes, timer: setInterval(() => document.hidden || likes.ask(), EVERY_MS) };
}

export function refresh() {
  open.likes.ask();
}

export function close() {
  open.charts.stop();
  open.likes.stop();
  clearInterval(open.timer);
  open = null;
  box.replaceChildren();
}

function welcome() {
  return el("section", { class: "sheet welcome" },
    el("h2", {}, "Pick a person"),
    el("p", {}, "Everybody here gets a profile that changes with every click and every purchase. Choose someone from the list, or type a user id: you will see what the system believes about that person, why, and what may come next."),
    el("button", { type: "button", class: "main-action", onclick: () => feed.someone() && route.go(route.userAddress(feed.someone())) }, "Show me someone"));
}

function drawn(users, tags) {
  const most = tags.reduce((all, { share }) => Math.max(all, share), 0.001);
  const line = ({ tag, share, users: people }) => el("li", {}, el("a", { href: route.address("map", { tag }), "--share": share / most },
    el("span", {}, tag), el("span", { class: "value" }, percent(share, 1)), el("small", {}, `${count(people)} people`)));
  return el("div", {},
    el("ol", { class: "likes" }, [...tags].sort((a, b) => b.share - a.share).slice(0, TAGS).map(line)),
    el("p", { class: "note" }, hint("memory", `${count(users)} people in memory`), " · share of all their interests"));
}
