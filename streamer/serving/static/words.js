// Numbers, times and changes in words.

const PLAIN = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const DAY = new Intl.DateTimeFormat("en", { dateStyle: "medium" });
const TIME = new Intl.DateTimeFormat("en", { timeStyle: "short", hourCycle: "h23" });
const SECOND = new Intl.DateTimeFormat("en", { timeStyle: "medium", hourCycle: "h23" });
const MOMENT = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium" });

export const count = (n) => (Math.abs(n) < 10000 ? PLAIN.format(n) : SHORT.format(n));
export const rate = (n) => (n < 10 && n > 0 ? n.toFixed(1) : count(Math.round(n)));
export const moment = (ms) => MOMENT.format(ms);
export const day = (ms) => DAY.format(ms);
export const sentence = (text) => text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
export const times = (lift) => `×${lift < 10 ? lift.toFixed(1) : Math.round(lift)}`;

/** A share as per cent, with so many digits after the point. */
export function percent(share, digits = 0) {
  const least = 10 ** -(digits + 2);
  if (share > 0 && share < least) return `<${(least * 100).toFixed(digits)}\u00a0%`;
  return `${(share * 100).toFixed(digits)}\u00a0%`;
}

export function money(amount, currency) {
  try {
    return new Intl.NumberFormat("en", { style: "currency", currency, currencyDisplay: "narrowSymbol" }).format(amount);
  } catch {
    return `${PLAIN.format(amount)} ${currency}`;
  }
}

/** A time of an axis that is `length_ms` long: seconds, minutes or the day, whatever tells most. */
export function clock(ms, length_ms) {
  if (length_ms > 2 * 86_400_000) return DAY.format(ms);
  return (length_ms > 1_800_000 ? TIME : SECOND).format(ms);
}

const STEPS = [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [7 * 86400, 86400, "d"]];

/** How long ago: `now`, `12 s ago`, `3 h ago`, or the day. */
export function ago(ms, now = Date.now()) {
  const seconds = Math.max(0, (now - ms) / 1000);
  if (seconds < 2) return "now";
  const step = STEPS.find(([below]) => seconds < below);
  return step ? `${Math.floor(seconds / step[1])} ${step[2]} ago` : DAY.format(ms);
}

/** A length of time: `0.4 s`, `12 s`, `3 min`. */
export function span(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  return seconds < 120 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}

export const KINDS = { click: "looked at", purchase: "bought" };
export const kind = (name) => KINDS[name] ?? name.replaceAll("_", " ");

/** One entry of `changed` in words. */
export function change({ what, tag, from, to }) {
  switch (what) {
    case "interest_added": return `new: ${tag}${to === undefined ? "" : ` ${percent(to)}`}`;
    case "interest_dropped": return `${tag} faded away`;
    case "interest_shifted": return shifted(tag, from, to);
    case "vector_moved": return "taste as a whole has moved";
    case "activity": return "small changes";
    case "first_profile": return "first profile";
    case "heartbeat": return "nothing new, a sign of life";
    default: return what.replaceAll("_", " ");
  }
}

function shifted(tag, from, to) {
  if (from === undefined || to === undefined) return `${tag} moved`;
  return `${tag} ${percent(from)} → ${percent(to)}`;
}

/** All of `changed` in one line, the weightiest first. */
export function changes(list, most = 3) {
  const size = ({ from = 0, to = 0 }) => Math.abs(to - from);
  const sorted = [...list].sort((a, b) => size(b) - size(a));
  const more = sorted.length > most ? `, and ${sorted.length - most} more` : "";
  return sorted.slice(0, most).map(change).join(", ") + more;
}

const EXPERTS = {
  transitions: ["what comes next", "often follows", "often follows what was done last"],
  transitions_long: ["what comes later", "often comes some steps after", "often comes some steps after what was done"],
  interests: ["interests", null, "fits the interests"],
  titles: ["likeness", "is much like", "is much like recent items"],
  factors: ["taste", "goes well with", "goes with the taste as a whole"],
  popularity_1d: ["popular today", null, "is popular today"],
  popularity_7d: ["popular this week", null, "is popular this week"],
  popularity_30d: ["popular this month", null, "is popular this month"],
};

/** A member of the model's team by a name for people. */
export const expert = (name) => EXPERTS[name]?.[0] ?? name.replaceAll("_", " ");

/** What members of the team say of an item, as parts of a sentence: those who speak of the item that led to it first. */
export function expertsSay(names, because) {
  const known = names.map((name) => EXPERTS[name] ?? [null, null, `is favoured by ${expert(name)}`]);
  const linked = because ? known.filter(([, before]) => before).map(([, before]) => before) : [];
  const alone = known.filter(([, before]) => !because || !before).map(([, , words]) => words).join("; ");
  if (!linked.length) return [alone];
  return [`${linked.join(" and ")} `, because, alone && `; ${alone}`];
}
