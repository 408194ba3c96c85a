// What a person did: totals, hours of the day, recent items.

import { el, say, set } from "./dom.js";
import { reason } from "./interests.js";
import * as items from "./items.js";
import { count, money } from "./words.js";

const RECENT = 8; // shown at first

/** Totals. */
export function totals() {
  const list = el("dl", { class: "totals", "aria-label": "In all" });
  const pair = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
  const update = ({ activity }) => list.replaceChildren(
    pair("looked at", count(activity.clicks)),
    pair("bought", count(activity.purchases)),
    ...Object.entries(activity.spend).map(([currency, amount]) => pair("spent", money(amount, currency))));
  return { node: list, update };
}

/** Activity by hour of the day. */
export function hours() {
  const bars = Array.from({ length: 24 }, (_, hour) => el("i", { "data-hour": hour }));
  const chart = el("div", { class: "hours", role: "img" }, bars);
  const update = ({ activity: { by_hour: counts } }) => {
    const most = Math.max(1, ...counts);
    counts.forEach((n, hour) => set(bars[hour], { "--part": n / most, title: `${hour}–${hour + 1} h UTC: ${count(n)}`, class: n === most && n > 0 ? "most" : null }));
    set(chart, { "aria-label": inWords(counts) });
  };
  return { node: el("section", { class: "when" }, el("h3", {}, "By hour ", el("small", {}, "UTC")), chart, hourAxis()), update };
}

export const hourAxis = () => el("div", { class: "axis", "aria-hidden": "true" }, ["0", "6", "12", "18", "24"].map((hour) => el("span", {}, hour)));

function inWords(counts) {
  const most = Math.max(...counts);
  if (!most) return "Activity by hour of the day: none yet.";
  const busy = counts.map((n, hour) => [n, hour]).filter(([n]) => n > 0).sort(([a], [b]) => b - a).slice(0, 3);
  return `Activity by hour of the day, UTC. Most at ${busy.map(([n, hour]) => `${hour} h (${count(n)})`).join(", ")}.`;
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
