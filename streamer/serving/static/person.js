// One person's profile: asked for once, then kept up to date by its own stream.

import { ApiError, follow, get, profilePath } from "./api.js";
import { $, el, say } from "./dom.js";
import * as items from "./items.js";
import { hours, interests, last, made, recent, totals, who } from "./sections.js";
import { changes } from "./words.js";

const SKELETON_MS = 150; // a quick answer shows no skeleton
const ANNOUNCE_MS = 5000;
const box = $("profile");

let shown = null; // { id, parts, version, stop, abort }
let announced = 0;

/** Show a person, or with null the invitation to pick one; `suggest()` picks someone. */
export function show(id, suggest) {
  close();
  document.title = id ? `${id} · streamer` : "streamer";
  if (document.activeElement !== $("find-id")) $("find-id").value = id ?? ""; // never take away what is being typed
  if (!id) return invite(suggest);
  const abort = new AbortController();
  shown = { id, parts: null, version: 0, abort, stop: () => {} };
  load(shown);
}

/** Ask again, after the worker was away. */
export function refresh() {
  if (shown) load(shown);
}

function close() {
  if (!shown) return;
  shown.abort.abort();
  shown.stop();
  clearTimeout(shown.retry);
  shown = null;
}

async function load(person) {
  clearTimeout(person.retry);
  const late = setTimeout(() => person === shown && !person.parts && skeleton(), SKELETON_MS);
  try {
    const profile = await get(profilePath(person.id), person.abort.signal);
    if (person === shown) render(profile);
  } catch (error) {
    if (person === shown) fail(person, error);
  } finally {
    clearTimeout(late);
  }
}

function render(profile) {
  if (profile.version < shown.version) return;
  if (!shown.parts) build(shown);
  shown.version = profile.version;
  box.setAttribute("aria-busy", "false");
  for (const part of shown.parts) part.update(profile);
  items.fill(box);
}

function build(person) {
  const [head, change, likes, when, sum, things, origin] = [who(), last(), interests(), hours(), totals(), recent(), made()];
  person.parts = [head, change, likes, when, sum, things, origin];
  box.replaceChildren(
    head.node,
    change.node,
    el("div", { class: "columns" }, likes.node, el("div", { class: "side" }, sum.node, when.node, things.node)),
    origin.node);
  person.stop();
  person.stop = follow(`/v1/changes?user=${encodeURIComponent(person.id)}`, (name, profile) => {
    if (name !== "profile" || person !== shown) return;
    render(profile);
    announce(profile);
  }, (error) => !error && person === shown && load(person));
}

function announce(profile) {
  if (Date.now() - announced < ANNOUNCE_MS) return;
  announced = Date.now();
  say($("announce"), `${profile.user_id} changed: ${changes(profile.changed)}`);
}

function fail(person, error) {
  if (person.parts && (error.status === 0 || error.status === 503)) return later(person, 3); // what is shown stays; the banner tells
  person.stop();
  person.parts = null;
  if (!(error instanceof ApiError)) throw error;
  if (error.status === 404) return unknown(person);
  if (error.status === 503) recovering(person, error);
  else if (error.status === 401) message("Locked", "Give the access token above to see profiles.");
  else message("That did not work", error.message, again(person));
}

function invite(suggest) {
  message("Pick a person", "Choose someone from the list, or type a user id. You will see what the system believes about that person, and why.",
    el("button", { type: "button", onclick: suggest }, "Show me someone"));
}

function unknown(person) {
  message(`Nobody called “${person.id}” yet`, "No event of this person has been seen. Ids are case-sensitive. As soon as this person does something, the profile appears here.");
  person.stop = follow(`/v1/changes?user=${encodeURIComponent(person.id)}`, (name, profile) => {
    if (name === "profile" && person === shown) render(profile);
  });
}

function recovering(person, error) {
  message("Not yet", `${sentence(error.message)} The profile appears here as soon as it can be trusted.`, again(person));
  later(person, error.retryAfterS || 2);
}

function later(person, seconds) {
  clearTimeout(person.retry);
  person.retry = setTimeout(() => person === shown && load(person), seconds * 1000);
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
const again = (person) => el("button", { type: "button", onclick: () => load(person) }, "Try again");

function message(title, text, ...more) {
  box.setAttribute("aria-busy", "false");
  box.replaceChildren(el("div", { class: "message" }, el("h2", {}, title), el("p", {}, text), more));
}

function skeleton() {
  box.setAttribute("aria-busy", "true");
  const lines = [60, 35, 90, 75, 62, 50, 38, 30].map((width) => el("i", { "--width": `${width}%` }));
  box.replaceChildren(el("div", { class: "skeleton" }, el("span", { class: "unseen" }, "Loading the profile"), lines));
}
