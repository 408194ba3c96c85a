// Two people side by side: what they share and where they differ.

import { skeleton } from "./asked.js";
import { hourAxis } from "./activity.js";
import { $, el, keyed, say, set } from "./dom.js";
import * as find from "./find.js";
import { hint } from "./hints.js";
import { scale } from "./interests.js";
import * as items from "./items.js";
import { message, obstacle } from "./person.js";
import { keep } from "./profiles.js";
import * as route from "./route.js";
import { when } from "./sections.js";
import { count, money, percent } from "./words.js";

const ROWS = 16;
const box = $("pair");

let shown = null; // { ids, kept, profiles, errors, parts }

/** Show the two people whom the address names. */
export function show({ user, query }) {
  const ids = [user, query.get("with")];
  if (shown && shown.ids.join("\n") === ids.join("\n")) return;
  close();
  if (ids[0] === ids[1]) return alone(ids[0]);
  const pair = { ids, profiles: [null, null], errors: [null, null], parts: null };
  shown = pair;
  box.replaceChildren(skeleton(8));
  pair.kept = ids.map((id, side) => keep(id, (profile) => take(pair, side, profile, null), (error, again) => take(pair, side, null, { error, again })));
}

export function refresh() {
  for (const kept of shown?.kept ?? []) kept.again();
}

export function close() {
  for (const kept of shown?.kept ?? []) kept.stop();
  shown = null;
  box.replaceChildren();
}

function alone(id) {
  box.replaceChildren(message("That is one person", `“${id}” stands on both sides.`, el("a", { href: route.userAddress(id) }, `Show ${id}`)));
}

function take(pair, side, profile, error) {
  pair.profiles[side] = profile;
  pair.errors[side] = error;
  const failed = pair.errors.findIndex(Boolean);
  if (failed >= 0) return obstructed(pair, failed);
  if (!pair.profiles.every(Boolean)) return;
  if (!pair.parts) build(pair);
  for (const part of pair.parts) part.update(pair.profiles);
  items.fill(box);
}

function obstructed(pair, side) {
  const { error, again } = pair.errors[side];
  pair.parts = null;
  box.replaceChildren(obstacle(pair.ids[side], error, again), el("p", { class: "message" }, el("a", { href: route.userAddress(pair.ids[1 - side]) }, `Show ${pair.ids[1 - side]} alone`)));
}

function build(pair) {
  pair.parts = [heads(pair.ids), likes(), days(), both()];
  const [head, bars, day, things] = pair.parts;
  box.replaceChildren(head.node, bars.node, el("div", { class: "halves" }, day.node, things.node), change(pair.ids));
}

/** Names and totals, left and right. */
function heads(ids) {
  const common = el("b"), sides = ids.map((id) => ({ line: el("p", { class: "note" }), sum: el("dl", { class: "totals" }), id }));
  const head = ({ id, line, sum }) => el("header", { class: "who" }, el("h2", {}, el("a", { href: route.userAddress(id) }, id)), line, sum);
  const update = (profiles) => {
    sides.forEach(({ line, sum }, side) => {
      const { activity } = profiles[side];
      line.replaceChildren("last seen ", when(activity.last_seen));
      const spent = Object.entries(activity.spend).map(([currency, amount]) => ["spent", money(amount, currency)]);
      sum.replaceChildren(...[["looked at", count(activity.clicks)], ["bought", count(activity.purchases)], ...spent].map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
    });
    say(common, percent(overlap(profiles)));
  };
  const middle = el("p", { class: "common" }, common, hint("overlap", "in common"));
  return { node: el("div", { class: "versus" }, head(sides[0]), middle, head(sides[1])), update };
}

const shareOf = ({ interests }, tag) => interests.find((one) => one.tag === tag)?.share ?? 0;

const overlap = ([one, other]) => one.interests.reduce((sum, { tag, share }) => sum + Math.min(share, shareOf(other, tag)), 0);

/** Interests from the middle to both sides. */
function likes() {
  const list = el("ul", { class: "mirror" });
  const place = keyed(list, mirrored);
  const update = (profiles) => {
    const tags = [...new Set(profiles.flatMap(({ interests }) => interests.map(({ tag }) => tag)))];
    const rows = tags.map((tag) => ({ tag, shares: profiles.map((profile) => shareOf(profile, tag)) }));
    rows.sort((a, b) => Math.max(...b.shares) - Math.max(...a.shares));
    place(rows.slice(0, ROWS), ({ tag }) => tag, scale(profiles.flatMap(({ interests }) => interests)));
  };
  return { node: el("section", {}, el("h3", {}, "Interests, by ", hint("share", "share")), list), update };
}

function mirrored(tag) {
  const values = [0, 1].map(() => el("span", { class: "value" }));
  const tracks = [0, 1].map(() => el("span", { class: "half", "aria-hidden": "true" }, el("i")));
  const node = el("li", {}, values[0], tracks[0], el("span", { class: "tag" }, tag), tracks[1], values[1]);
  const update = ({ shares }, full) => shares.forEach((share, side) => {
    set(tracks[side], { "--share": share / full });
    say(values[side], share ? percent(share) : "–");
    node.classList.toggle("common", Math.min(...shares) > 0);
  });
  return { node, update };
}

/** Hours of the day, one over the other. */
function days() {
  const charts = [0, 1].map((side) => el("div", { class: side ? "hours hanging" : "hours", role: "img" }, Array.from({ length: 24 }, () => el("i"))));
  const update = (profiles) => profiles.forEach(({ user_id, activity: { by_hour: counts } }, side) => {
    const most = Math.max(1, ...counts);
    counts.forEach((n, hour) => set(charts[side].children[hour], { "--part": n / most, title: `${user_id}, ${hour}–${hour + 1} h UTC: ${count(n)}` }));
    set(charts[side], { "aria-label": `Activity of ${user_id} by hour, UTC: most at ${counts.indexOf(Math.max(...counts))} h.` });
  });
  return { node: el("section", { class: "when" }, el("h3", {}, "By hour ", el("small", {}, "UTC, one above, the other below")), charts[0], charts[1], hourAxis()), update };
}

/** Items that both of them took lately. */
function both() {
  const list = el("ul", { class: "things" });
  const update = ([one, other]) => {
    const theirs = new Set(other.recent_items.map(({ item_id }) => item_id));
    const common = [...new Set(one.recent_items.map(({ item_id }) => item_id))].filter((id) => theirs.has(id));
    list.replaceChildren(...(common.length ? common.map((id) => el("li", {}, items.name(id))) : [el("li", { class: "note" }, "No item of late.")]));
  };
  return { node: el("section", {}, el("h3", {}, "Both came across"), list), update };
}

/** A field for another person on the right. */
function change([id]) {
  const form = el("form", { class: "find beside", role: "search", "aria-label": "Compare" });
  find.start(form, { label: "Put someone else beside", button: "Compare", choose: (other) => route.go(route.userAddress(id, { with: other })) });
  return form;
}
