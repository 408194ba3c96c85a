// The worker's state, asked for every second: header, banner and footer.

import { get, setToken } from "./api.js";
import { $, el, say, set } from "./dom.js";
import { ago, count, rate, span } from "./words.js";

const EVERY_MS = 1000;
const AGAIN_MS = 2000;
const POINTS = 60; // one minute of rates

let before = null; // the last answer and when it came
let away = false;
let timer = 0;
const rates = [];

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
  ask();
}

async function once(back) {
  try {
    const status = await get("/v1/status");
    draw(status);
    if (away) back();
    away = false;
    return true;
  } catch (error) {
    lost(error);
    away = true;
    return false;
  }
}

function draw(status) {
  health(status.ready ? "ready" : "recovering", status.ready ? "ready" : "recovering");
  banner(status.ready ? "" : `The worker is getting its memory back: ${status.reason}. Profiles may be missing for a moment.`);
  numbers(status);
  worker(status);
}

function lost(error) {
  const locked = error.status === 401;
  health("lost", locked ? "locked" : "no answer");
  $("token-form").hidden = !locked;
  banner(locked ? "This worker shows profiles only to those who have its token." : `${error.message} Trying again by itself; what you see is the last that was known.`, !locked);
  before = null;
}

function health(state, text) {
  $("health").dataset.state = state;
  say($("health-text"), text);
}

function banner(text, retry = false) {
  $("banner").hidden = !text;
  $("banner-retry").hidden = !retry;
  if (text) say($("banner-text"), text);
  if (!text) $("token-form").hidden = true;
}

function numbers(status) {
  const now = performance.now();
  if (before && status.started_at === before.status.started_at) {
    const seconds = (now - before.at) / 1000;
    const perSecond = (field) => Math.max(0, (status[field] - before.status[field]) / seconds);
    say($("n-events"), rate(perSecond("events_total")));
    say($("n-profiles"), rate(perSecond("profiles_total")));
    spark(perSecond("events_total"));
  }
  before = { status, at: now };
  say($("n-lag"), status.lag_records ? `${count(status.lag_records)} · ${span(status.lag_seconds)}` : "none");
  say($("n-users"), count(status.users_cached));
}

function spark(value) {
  rates.push(value);
  if (rates.length > POINTS) rates.shift();
  const most = Math.max(1, ...rates);
  const points = rates.map((rate, at) => `${120 - (rates.length - 1 - at) * (120 / (POINTS - 1))},${23 - (rate / most) * 22}`);
  $("spark").firstElementChild.setAttribute("points", points.join(" "));
}

const squares = new Map();

function worker(status) {
  const line = `version ${status.version} · up since ${ago(status.started_at)} · ${count(status.events_total)} events, ${count(status.profiles_total)} profiles, ${count(status.rejected_total)} rejected`;
  const footer = $("worker");
  if (!footer.firstChild) {
    footer.append(el("h2", {}, "This worker"), el("p", { class: "note" }), el("ul", { class: "partitions", "aria-label": "Partitions" }), el("p", { class: "note" }));
  }
  const [, text, list, sum] = footer.children;
  say(text, line);
  say(sum, partitionsInWords(status.partitions));
  drawPartitions(list, status.partitions);
}

function partitionsInWords(partitions) {
  if (!partitions.length) return "It owns no partition: another worker does the work, and this one stands by.";
  const restoring = partitions.filter(({ state }) => state === "restoring").length;
  return `It owns ${partitions.length} ${partitions.length === 1 ? "part" : "parts"} of all people${restoring ? `, ${restoring} of them being restored` : ""}. Each square is one; the fuller, the more events wait in it.`;
}

function drawPartitions(list, partitions) {
  const owned = new Set(partitions.map(({ partition }) => partition));
  for (const number of [...squares.keys()].filter((number) => !owned.has(number))) {
    squares.get(number).remove();
    squares.delete(number);
  }
  for (const one of partitions) {
    if (!squares.has(one.partition)) {
      squares.set(one.partition, el("li", { tabindex: "0" }));
      list.append(squares.get(one.partition));
    }
    square(squares.get(one.partition), one);
  }
}

function square(node, { partition, state, topics }) {
  const lag = topics.reduce((sum, topic) => sum + topic.lag, 0);
  const detail = topics.map(({ topic, position, end, lag: behind }) => `${topic} ${count(position)} of ${count(end)}${behind ? `, ${count(behind)} behind` : ""}`);
  const text = [`partition ${partition}: ${state}`, ...detail].join("; ");
  set(node, { "data-state": state, "--lag": Math.min(1, Math.log10(1 + lag) / 5), title: text, "aria-label": text });
  say(node, String(partition));
}
