// Who a person is, what changed last, and how the profile was made. Each part has a `node` and an `update(profile)`.

import { hasToken, profilePath } from "./api.js";
import { el, say } from "./dom.js";
import { hint } from "./hints.js";
import { ago, change, count, day, moment } from "./words.js";

/** A time that is told as how long ago, and stays true. */
export const when = (ms) => el("time", { datetime: new Date(ms).toISOString(), "data-ts": ms, title: moment(ms) }, ago(ms));

/** Who it is; `compare()` is called by who wants to see someone else beside. */
export function who(compare) {
  const name = el("h2"), facts = el("span");
  const line = el("p", { class: "note" }, facts, " · ", el("button", { type: "button", class: "link", onclick: compare }, "compare"));
  const update = ({ user_id, activity }) => {
    say(name, user_id);
    facts.replaceChildren("known since ", el("b", {}, day(activity.first_seen)), " · last seen ", when(activity.last_seen));
  };
  return { node: el("header", { class: "who" }, name, line), update };
}

/** What changed last, and what caused it. */
export function last() {
  const list = el("ul"), line = el("p", { class: "note" });
  const update = (profile) => {
    if (!profile.changed.length && list.children.length) return; // asked for between two publications: what is shown stays
    const said = profile.changed.map((one) => el("li", { class: direction(one) }, change(one)));
    list.replaceChildren(...(said.length ? said : [el("li", {}, "nothing since it was last published")]));
    line.replaceChildren("published ", when(profile.published_at), ", caused by event ", el("code", {}, profile.cause));
  };
  return { node: el("section", { class: "last" }, el("h3", {}, "What changed last"), list, line), update };
}

function direction({ what, from = 0, to = 0 }) {
  if (what === "interest_added") return "up";
  if (what === "interest_dropped") return "down";
  if (what !== "interest_shifted") return "";
  return to > from ? "up" : "down";
}

/** How the profile was made: for those who build on it. */
export function made() {
  const line = el("p", { class: "made note" });
  const update = (profile) => line.replaceChildren(
    hint("version", `version ${count(profile.version)}`),
    " · knows events up to ", el("time", { datetime: new Date(profile.as_of).toISOString() }, moment(profile.as_of)),
    " · ", hint("vector", `${profile.vector_dim} numbers`), ` in the space “${profile.model}”`,
    ...(hasToken() ? [] : [" · ", el("a", { href: profilePath(profile.user_id) }, "JSON")])); // a link carries no token
  return { node: line, update };
}
