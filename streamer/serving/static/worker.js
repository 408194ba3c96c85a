// The worker: how it goes, and how far it has read.

import { $, el, keyed, say, set } from "./dom.js";
import { hint } from "./hints.js";
import { live } from "./live.js";
import * as pulse from "./pulse.js";
import { when } from "./sections.js";
import { count, span } from "./words.js";

const STATES = { running: "up to date or reading", restoring: "getting its memory back" };
const box = $("worker");

let open = null;

/** Show it. */
export function show() {
  if (open) return;
  const charts = live(["events", "profiles", "waiting", "delay"]);
  const head = el("div", { class: "head" }), sum = el("p", { class: "note" }), body = el("tbody");
  const place = keyed(body, line);
  box.replaceChildren(head, charts.node, el("section", { class: "sheet" }, el("h3", {}, hint("partition", "Partitions")), sum,
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Partitions" }, el("table", { class: "partitions" }, heads(), body))));
  const stop = pulse.on((status) => {
    head.replaceChildren(...facts(status));
    say(sum, inWords(status));
    place(status.partitions, ({ partition }) => partition);
  });
  open = { charts, stop };
}

export function refresh() {} // the pulse tells all

export function close() {
  open.charts.stop();
  open.stop();
  open = null;
  box.replaceChildren();
}

function facts({ version, started_at, events_total, profiles_total, rejected_total, users_cached }) {
  const fact = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
  return [
    el("header", {}, el("h2", {}, "This worker"), el("p", { class: "note" }, `version ${version} · started `, when(started_at), " · ", el("a", { href: "/docs" }, "its API"))),
    el("dl", { class: "totals" }, fact(hint("events", "events"), count(events_total)), fact(hint("profiles", "profiles"), count(profiles_total)),
      fact(hint("rejected", "rejected"), count(rejected_total)), fact(hint("memory", "people in memory"), count(users_cached)))];
}

function inWords({ partitions, lag_records: waiting, lag_seconds: delay }) {
  if (!partitions.length) return "It owns no partition: another worker does the work, and this one stands by.";
  const restoring = partitions.filter(({ state }) => state === "restoring").length;
  const parts = `It looks after ${count(partitions.length)} ${partitions.length === 1 ? "part" : "parts"} of all people${restoring ? `, ${restoring} of them being restored` : ""}.`;
  return `${parts} ${waiting ? `${count(waiting)} records wait, the oldest for ${span(delay)}.` : "Nothing waits."}`;
}

const heads = () => el("thead", {}, el("tr", {}, ["number", "state", "waiting"].map((head) => el("th", { scope: "col" }, head)), el("th", { scope: "col" }, hint("topic", "read, by topic"))));

function line(number) {
  const state = el("td"), bar = el("i", { "aria-hidden": "true" }), waiting = el("span"), topics = el("td", { class: "topics" });
  const node = el("tr", {}, el("th", { scope: "row" }, String(number)), state, el("td", { class: "lag" }, bar, waiting), topics);
  const update = (one) => {
    const behind = one.topics.reduce((sum, { lag }) => sum + lag, 0);
    node.dataset.state = one.state;
    say(state, one.state);
    state.title = STATES[one.state] ?? "";
    set(bar, { "--lag": Math.min(1, Math.log10(1 + behind) / 5) });
    say(waiting, count(behind));
    say(topics, one.topics.map(({ topic, position, lag }) => `${topic} ${count(position)}${lag ? ` (${count(lag)} to go)` : ""}`).join(" · "));
  };
  return { node, update };
}
