// Numbers, times and changes in words.

const PLAIN = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const DAY = new Intl.DateTimeFormat("en", { dateStyle: "medium" });
const MOMENT = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium" });

export const count = (n) => (Math.abs(n) < 10000 ? PLAIN.format(n) : SHORT.format(n));
export const rate = (n) => (n < 10 && n > 0 ? n.toFixed(1) : count(Math.round(n)));
export const moment = (ms) => MOMENT.format(ms);
export const day = (ms) => DAY.format(ms);
export const times = (lift) => `×${lift < 10 ? lift.toFixed(1) : Math.round(lift)}`;

export function percent(share) {
  if (share > 0 && share < 0.01) return "<1\u00a0%";
  return `${Math.round(share * 100)}\u00a0%`;
}

export function money(amount, currency) {
  try {
    return new Intl.NumberFormat("en", { style: "currency", currency, currencyDisplay: "narrowSymbol" }).format(amount);
  } catch {
    return `${PLAIN.format(amount)} ${currency}`;
  }
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
