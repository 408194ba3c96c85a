// The worker's state, asked for every second: who wants to know is told, and the last minutes are kept for the charts.

import { get, setToken } from "./api.js";
import { $, say } from "./dom.js";
import { rate, sentence, span } from "./words.js";

const EVERY_MS = 1000;
const AGAIN_MS = 2000;
const KEPT_MS = 600_000; // ten minutes of samples
const STORE = "streamer-samples"; // for this tab: a reload does not empty the charts

/** The last minutes, oldest first: `{at, events, profiles, waiting, delay}`; rates are a second's, null after a gap. */
export const samples = restored();
export const state = { status: null };

const listeners = new Set();
let before = null; // the last answer and when it came
let away = false;
let timer = 0;

/** Call `listener(status)` at every answer from now on, and at once when there is one. Returns what ends that. */
export function on(listener) {
  listeners.add(listener);
  if (state.status) listener(state.status);
  return () => listeners.delete(listener);
}

/** Start asking; `back()` is called when the worker is there again after it was not. */
export function start(back) {
  const ask = async () => {
    clearTimeout(timer);
    const worked = document.hidden || (await once(back));
    timer = setTimeout(ask, worked ? EVERY_MS : AGAIN_MS);
  };
  $("banner-retry").addEventListener("click", ask);
  $("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setToken($("token").value.trim());
    ask();
  });
  document.addEventListener("visibilitychange", () => document.hidden || ask());
  addEventListener("pagehide", () => sessionStorage.setItem(STORE, JSON.stringify(samples)));
  ask();
}

async function once(back) {
  try {
    take(await get("/v1/status"));
    if (away) back();
    away = false;
    return true;
  } catch (error) {
    lost(error);
    away = true;
    return false;
  }
}

function take(status) {
  state.status = status;
  sample(status);
  if (status.ready) health("ready", speed());
  else health("recovering", "recovering");
  banner(status.ready ? "" : `The worker is getting its memory back: ${status.reason}. Profiles may be missing for a moment.`);
  for (const listener of listeners) listener(status);
}

function sample(status) {
  const at = Date.now(), now = performance.now();
  const same = before && before.status.started_at === status.started_at;
  const perSecond = (field) => (same ? Math.max(0, ((status[field] - before.status[field]) * 1000) / (now - before.now)) : null);
  samples.push({ at, events: perSecond("events_total"), profiles: perSecond("profiles_total"), waiting: status.lag_records, delay: status.lag_seconds });
  while (samples[0].at < at - KEPT_MS) samples.shift();
  before = { status, now };
}

function speed() {
  const { events, delay } = samples.at(-1);
  if (events === null) return "ready";
  return delay > 2 ? `${rate(events)} events/s · ${span(delay)} behind` : `${rate(events)} events/s`;
}

function lost(error) {
  const locked = error.status === 401;
  health("lost", locked ? "locked" : "no answer");
  $("token-form").hidden = !locked;
  banner(locked ? "This worker shows profiles only to those who have its token." : `${sentence(error.message)} Trying again by itself; what you see is the last that was known.`, !locked);
  if (before) samples.push({ at: Date.now(), events: null, profiles: null, waiting: null, delay: null });
  before = null;
}

function health(what, text) {
  $("health").dataset.state = what;
  document.body.dataset.health = what;
  say($("health-text"), text);
}

function banner(text, retry = false) {
  $("banner").hidden = !text;
  $("banner-retry").hidden = !retry;
  if (text) say($("banner-text"), text);
  if (!text) $("token-form").hidden = true;
}

function restored() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(STORE)) ?? [];
    return kept.filter(({ at }) => at > Date.now() - KEPT_MS);
  } catch {
    return []; // of another version of the page
  }
}
