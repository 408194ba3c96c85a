// The list of people whose profile has just changed. Stands still while someone points at it.

import { follow } from "./api.js";
import { $, el, flash } from "./dom.js";
import { ago, changes, count, percent } from "./words.js";

const PER_SECOND = 4; // more than an eye can follow; the rest is counted
const SHOW_MS = 600;
const MOST = 40;

const list = $("feed");
const rows = new Map(); // user id → li
let waiting = new Map();
let paused = false;
let missed = 0;
let marked = null;

/** Start the feed; `choose(id)` is called when someone picks a person. */
export function start(choose) {
  empty("Waiting for the first change…");
  follow(`/v1/changes?rate=${PER_SECOND}`, take, (error) => {
    if (!error && rows.size === 0) empty("Nobody's profile has changed since you came. As soon as events flow, people appear here.");
  });
  list.addEventListener("click", (event) => {
    const row = event.target.closest("[data-user]");
    if (row) choose(row.dataset.user);
  });
  $("pause").addEventListener("click", toggle);
  setInterval(show, SHOW_MS);
}

/** Mark the person that is shown beside. */
export function mark(id) {
  marked = id;
  for (const [user, row] of rows) row.firstChild.setAttribute("aria-current", String(user === id));
}

/** The person who changed last, if any. */
export const someone = () => list.querySelector("[data-user]")?.dataset.user;

function take(name, value) {
  if (name === "skipped") missed += value.skipped;
  if (name === "profile") {
    waiting.delete(value.user_id); // its new place is the last
    waiting.set(value.user_id, value);
  }
  note();
}

function toggle() {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "Go on" : "Pause";
  note();
}

function note() {
  const rest = missed ? ` Many change at once: this is a sample, ${count(missed)} more since you came.` : "";
  const state = paused ? `Paused. ${waiting.size ? `${count(waiting.size)} waiting.` : ""}` : "People whose profile has just been published.";
  $("feed-note").textContent = state + rest;
}

function show() {
  if (paused || !waiting.size || list.matches(":hover") || list.contains(document.activeElement)) return;
  if (!rows.size) list.replaceChildren();
  for (const profile of waiting.values()) place(profile);
  waiting = new Map();
  while (rows.size > MOST) {
    rows.delete(list.lastChild.firstChild.dataset.user);
    list.lastChild.remove();
  }
}

function place(profile) {
  rows.get(profile.user_id)?.remove();
  const row = el("li", {}, entry(profile));
  rows.set(profile.user_id, row);
  list.prepend(row);
  flash(row);
}

function entry(profile) {
  return el("button", { type: "button", "data-user": profile.user_id, "aria-current": String(profile.user_id === marked) },
    el("span", { class: "who" }, profile.user_id),
    el("time", { "data-ts": profile.published_at }, ago(profile.published_at)),
    el("span", { class: "what" }, changes(profile.changed, 2)),
    el("span", { class: "tops" }, profile.interests.slice(0, 3).map(top)));
}

function top({ tag, share }) {
  return el("span", { class: "top3", "--share": share, title: `${tag}: ${percent(share)} of all interests` },
    el("span", {}, tag), el("i", { "aria-hidden": "true" }));
}

function empty(text) {
  list.replaceChildren(el("li", { class: "empty" }, text));
}
