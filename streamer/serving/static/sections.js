// The parts of a profile. Each has a `node` and an `update(profile)` that leaves alone what has not changed.

import { hasToken, profilePath } from "./api.js";
import { el, flash, say, set } from "./dom.js";
import * as items from "./items.js";
import { ago, change, count, day, kind, moment, money, percent, times } from "./words.js";

const RECENT = 10; // shown at first

const when = (ms) => el("time", { datetime: new Date(ms).toISOString(), "data-ts": ms, title: moment(ms) }, ago(ms));
const hint = (id, text) => el("button", { type: "button", class: "hint", popovertarget: id }, text);

/** Who it is. */
export function who() {
  const name = el("h2", {}), line = el("p", { class: "note" });
  const update = (profile) => {
    say(name, profile.user_id);
    line.replaceChildren("known since ", el("b", {}, day(profile.activity.first_seen)), " · last seen ", when(profile.activity.last_seen));
  };
  return { node: el("header", { class: "who" }, name, line), update };
}

/** What changed last, and what caused it. */
export function last() {
  const list = el("ul", {}), line = el("p", { class: "note" });
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

/** Interests as bars, each opens to the items behind it. */
export function interests() {
  const rows = new Map();
  const list = el("ul", { class: "bars" });
  const most = el("span", {}), how = el("p", { class: "note" }, "Open a line to see why.");
  const none = el("p", { class: "note" }, "No interest stands out yet: it takes a few events with tags.");
  const update = (profile) => {
    const full = scale(profile.interests);
    const changed = new Set(profile.changed.map(({ tag }) => tag));
    const tags = new Set(profile.interests.map(({ tag }) => tag));
    for (const tag of [...rows.keys()].filter((tag) => !tags.has(tag))) drop(tag);
    profile.interests.forEach((interest, at) => place(interest, at, full, changed.has(interest.tag)));
    say(most, percent(full));
    most.title = `A full bar is ${percent(full)} of all interests.`;
    none.hidden = tags.size > 0;
    how.hidden = !none.hidden;
  };
  const drop = (tag) => {
    rows.get(tag).node.remove();
    rows.delete(tag);
  };
  const place = (interest, at, full, fresh) => {
    if (!rows.has(interest.tag)) rows.set(interest.tag, bar(interest.tag));
    const row = rows.get(interest.tag);
    if (list.children[at] !== row.node) list.insertBefore(row.node, list.children[at] ?? null);
    row.update(interest, full);
    if (fresh) flash(row.node);
  };
  const legend = el("div", { class: "legend" }, el("h3", {}, "Interests"),
    el("span", { class: "scale" }, hint("hint-recent", "recent"), most), hint("hint-share", "share"), hint("hint-lift", "lift"));
  return { node: el("section", { class: "interests" }, legend, none, list, how), update };
}

/** The share at which a bar is full: the longest bar or mark, in steps of 10 %. */
function scale(list) {
  const most = Math.max(0.1, ...list.map(({ share, recent }) => Math.max(share, recent)));
  return Math.min(1, Math.ceil(most * 10) / 10);
}

function bar(tag) {
  const track = el("span", { class: "track", "aria-hidden": "true" }, el("i", { class: "share" }), el("i", { class: "recent" }));
  const share = el("span", { class: "value" }), lift = el("span", { class: "lift" }), trend = el("span", { class: "trend" });
  const why = el("ul", { class: "why" }), facts = el("p", { class: "note" });
  const summary = el("summary", {}, el("span", { class: "tag" }, tag, trend), track, share, lift);
  const node = el("li", {}, el("details", {}, summary, why, facts));
  const update = (interest, full) => {
    set(track, { "--share": interest.share / full, "--recent": interest.recent / full });
    say(share, percent(interest.share));
    say(lift, times(interest.lift));
    const direction = moving(interest);
    say(trend, direction);
    trend.dataset.way = direction;
    set(summary, { "aria-label": `${tag}: ${percent(interest.share)} of interests, recently ${percent(interest.recent)}, ${times(interest.lift)} the average` });
    why.replaceChildren(...interest.because.map(reason));
    facts.replaceChildren(
      `recently ${percent(interest.recent)} · weighs as much as ${interest.events.toFixed(1)} events of today · weight ${interest.weight.toFixed(2)} · last `,
      when(interest.last_ts));
  };
  return { node, update };
}

function moving({ share, recent }) {
  if (recent > share * 1.25 && recent - share > 0.02) return "growing";
  return recent < share * 0.7 && share - recent > 0.02 ? "cooling" : "";
}

const reason = (event) => el("li", { class: event.kind }, el("span", {}, `${kind(event.kind)} `, items.name(event.item_id)), " ", when(event.ts));

/** Totals. */
export function totals() {
  const list = el("dl", { class: "totals" });
  const pair = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
  const update = ({ activity }) => list.replaceChildren(
    pair("looked at", count(activity.clicks)),
    pair("bought", count(activity.purchases)),
    ...Object.entries(activity.spend).map(([currency, amount]) => pair("spent", money(amount, currency))));
  return { node: el("section", { class: "sum" }, el("h3", {}, "In all"), list), update };
}

/** Activity by hour of the day. */
export function hours() {
  const bars = Array.from({ length: 24 }, (_, hour) => el("i", { "data-hour": hour }));
  const chart = el("div", { class: "hours", role: "img" }, bars);
  const axis = el("div", { class: "axis", "aria-hidden": "true" }, ["0", "6", "12", "18", "24"].map((hour) => el("span", {}, hour)));
  const update = ({ activity: { by_hour: counts } }) => {
    const most = Math.max(1, ...counts);
    counts.forEach((n, hour) => set(bars[hour], { "--part": n / most, title: `${hour}–${hour + 1} h UTC: ${count(n)}`, class: n === most && n > 0 ? "most" : null }));
    set(chart, { "aria-label": `Activity by hour of the day, UTC. Most active from ${counts.indexOf(Math.max(...counts))} h on.` });
  };
  return { node: el("section", { class: "when" }, el("h3", {}, "By hour ", el("small", {}, "UTC")), chart, axis), update };
}

/** Recent items, newest first. */
export function recent() {
  const list = el("ol", { class: "things" });
  const more = el("button", { type: "button", class: "quiet", onclick: () => { all = true; draw(); items.fill(list); } });
  let all = false, events = [];
  const draw = () => {
    list.replaceChildren(...(all ? events : events.slice(0, RECENT)).map(reason));
    more.hidden = all || events.length <= RECENT;
    say(more, `Show all ${events.length}`);
  };
  const update = (profile) => { events = profile.recent_items; draw(); };
  return { node: el("section", { class: "recent" }, el("h3", {}, "Lately"), list, more), update };
}

/** How the profile was made: for those who build on it. */
export function made() {
  const line = el("p", { class: "made note" });
  const update = (profile) => line.replaceChildren(
    hint("hint-version", `version ${count(profile.version)}`),
    ` · knows events up to `, el("time", { datetime: new Date(profile.as_of).toISOString() }, moment(profile.as_of)),
    ` · ${profile.vector_dim} numbers in the space “${profile.model}”`,
    ...(hasToken() ? [] : [" · ", el("a", { href: profilePath(profile.user_id) }, "JSON")])); // a link carries no token
  return { node: line, update };
}
