// Interests as bars, each opens to the items behind it.

import { el, flash, keyed, say, set } from "./dom.js";
import { hint } from "./hints.js";
import * as items from "./items.js";
import * as route from "./route.js";
import { when } from "./sections.js";
import { kind, percent, times } from "./words.js";

const SHOWN = 10; // at first

/** The bars; `opened` is the tag whose reasons are shown at first. */
export function interests(opened) {
  const list = el("ul", { class: "bars" });
  const most = el("span"), how = el("span", { class: "note" }, "Open a line to see why.");
  const more = el("button", { type: "button", class: "quiet", onclick: () => { all = true; draw(latest); } });
  let all = false, latest = null;
  const none = el("p", { class: "note" }, "No interest stands out yet: it takes a few events with tags.");
  const place = keyed(list, (tag) => bar(tag, tag === opened));
  const draw = (profile) => {
    const full = scale(profile.interests);
    const shown = profile.interests.filter(({ tag }, at) => all || at < SHOWN || tag === opened);
    const rows = place(shown, ({ tag }) => tag, full);
    more.hidden = shown.length === profile.interests.length;
    say(more, `Show all ${profile.interests.length}`);
    say(most, percent(full));
    most.title = `A full bar is ${percent(full)} of all interests.`;
    none.hidden = profile.interests.length > 0;
    how.hidden = legend.hidden = !none.hidden;
    return rows;
  };
  const update = (profile) => {
    latest = profile;
    const rows = draw(profile);
    for (const { tag } of profile.changed) if (rows.has(tag)) flash(rows.get(tag).node);
  };
  const legend = el("div", { class: "legend" }, el("span"),
    el("span", { class: "scale" }, hint("recent", "recent"), most), hint("share", "share"), hint("lift", "lift"));
  return { node: el("section", { class: "interests" }, el("h3", {}, "Interests"), legend, none, list, el("div", { class: "ends-apart foot" }, how, more)), update };
}

/** The share at which a bar is full: the longest bar or mark, in steps of 10 %. */
export function scale(list) {
  const most = Math.max(0.1, ...list.map(({ share, recent }) => Math.max(share, recent)));
  return Math.min(1, Math.ceil(most * 10) / 10);
}

function bar(tag, open) {
  const track = el("span", { class: "track", "aria-hidden": "true" }, el("i", { class: "share" }), el("i", { class: "recent" }));
  const share = el("span", { class: "value" }), lift = el("span", { class: "lift" }), trend = el("span", { class: "trend" });
  const why = el("ul", { class: "why" }), facts = el("p", { class: "note" }), words = el("span", { class: "unseen" });
  const summary = el("summary", {}, el("span", { class: "tag" }, tag, trend), track, share, lift, words);
  const details = el("details", { open }, summary, why, facts);
  summary.addEventListener("click", () => route.note("tag", details.open ? null : tag)); // so that the address can be shared
  const update = (interest, full) => {
    set(track, { "--share": interest.share / full, "--recent": interest.recent / full });
    say(share, percent(interest.share));
    say(lift, times(interest.lift));
    trend.dataset.way = moving(interest);
    say(trend, trend.dataset.way);
    say(words, `of interests; recently ${percent(interest.recent)}; ${times(interest.lift)} the average`);
    why.replaceChildren(...interest.because.map(reason));
    facts.replaceChildren(
      `recently ${percent(interest.recent)} · weighs as much as ${interest.events.toFixed(1)} events of today · weight ${interest.weight.toFixed(2)} · last `,
      when(interest.last_ts));
  };
  return { node: el("li", {}, details), update };
}

function moving({ share, recent }) {
  if (recent > share * 1.25 && recent - share > 0.02) return "growing";
  return recent < share * 0.7 && share - recent > 0.02 ? "cooling" : "";
}

/** One thing that the person did, as a line. */
export const reason = (event) => el("li", { class: event.kind }, el("span", {}, `${kind(event.kind)} `, items.name(event.item_id)), " ", when(event.ts));
