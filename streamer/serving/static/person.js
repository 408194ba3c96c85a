// One person: what the system believes, why, how it came about and what may come next.

import { skeleton } from "./asked.js";
import { $, el, say } from "./dom.js";
import * as find from "./find.js";
import { hours, recent, totals } from "./activity.js";
import { interests } from "./interests.js";
import * as items from "./items.js";
import { moves } from "./moves.js";
import { next } from "./next.js";
import { keep } from "./profiles.js";
import * as route from "./route.js";
import { last, made, who } from "./sections.js";
import { changes, sentence } from "./words.js";

const SKELETON_MS = 150; // a quick answer shows no skeleton
const ANNOUNCE_MS = 5000;
const box = $("person");

let shown = null; // { id, kept, parts, late }
let announced = 0;

/** Show the person whom the address names. */
export function show({ user, query }) {
  if (shown?.id === user) return;
  close();
  const person = { id: user, parts: null, tag: query.get("tag") };
  person.late = setTimeout(loading, SKELETON_MS);
  shown = person;
  person.kept = keep(user, (profile, live) => draw(person, profile, live), (error, again) => fail(person, error, again));
}

/** Ask again, after the worker was away. */
export function refresh() {
  shown?.kept.again();
  for (const part of shown?.parts ?? []) part.refresh?.();
}

export function close() {
  if (!shown) return;
  clearTimeout(shown.late);
  shown.kept.stop();
  stopParts(shown);
  shown = null;
  box.replaceChildren();
}

function stopParts(person) {
  for (const part of person.parts ?? []) part.stop?.();
  person.parts = null;
}

function draw(person, profile, live) {
  clearTimeout(person.late);
  if (!person.parts) build(person);
  box.setAttribute("aria-busy", "false");
  for (const part of person.parts) part.update(profile);
  items.fill(box);
  if (live) announce(profile);
}

function build(person) {
  const field = beside(person.id);
  const [name, sum, change, likes, soon, moved, when, things, origin] = [who(() => field.querySelector("input").focus()), totals(), last(), interests(person.tag), next(person.id), moves(person.id), hours(), recent(), made()];
  person.parts = [name, sum, change, likes, soon, moved, when, things, origin];
  box.replaceChildren(el("div", { class: "sheet profile" },
    el("div", { class: "head" }, name.node, sum.node),
    change.node,
    el("div", { class: "columns" },
      el("div", { class: "main" }, likes.node, moved.node),
      el("div", { class: "side" }, soon.node, when.node, things.node)),
    field,
    origin.node));
}

/** A field for the person to put beside this one. */
function beside(id) {
  const form = el("form", { class: "find beside", role: "search", "aria-label": "Compare" });
  find.start(form, { label: "Put beside", button: "Compare", choose: (other) => route.go(route.userAddress(id, { with: other })) });
  return form;
}

function announce(profile) {
  if (Date.now() - announced < ANNOUNCE_MS) return;
  announced = Date.now();
  say($("announce"), `${profile.user_id} changed: ${changes(profile.changed)}`);
}

function fail(person, error, again) {
  clearTimeout(person.late);
  stopParts(person);
  box.setAttribute("aria-busy", "false");
  box.replaceChildren(el("div", { class: "sheet" }, obstacle(person.id, error, again)));
}

/** What to say when there is no profile to show. */
export function obstacle(id, error, again) {
  const retry = el("button", { type: "button", class: "quiet", onclick: again }, "Try again");
  if (error.status === 404) return message(`Nobody called “${id}” yet`, "No event of this person has been seen. Ids are case-sensitive. As soon as this person does something, the profile appears here.");
  if (error.status === 503 || error.status === 429) return message("Not yet", `${sentence(error.message)} The profile appears here as soon as it can be trusted.`, retry);
  if (error.status === 401) return message("Locked", "Give the access token above to see profiles.");
  return message("That did not work", sentence(error.message), retry);
}

/** A heading, a sentence, and what one can do. */
export const message = (title, text, ...more) => el("div", { class: "message" }, el("h2", {}, title), el("p", {}, text), more);

function loading() {
  box.setAttribute("aria-busy", "true");
  box.replaceChildren(el("div", { class: "sheet" }, skeleton(8)));
}
