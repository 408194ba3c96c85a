// The explorer page. Knows only the HTTP API; the address says what is shown.

import { wake } from "./api.js";
import { $, say } from "./dom.js";
import * as feed from "./feed.js";
import * as find from "./find.js";
import * as hints from "./hints.js";
import * as map from "./map.js";
import * as model from "./model.js";
import * as overview from "./overview.js";
import * as pair from "./pair.js";
import * as person from "./person.js";
import * as pulse from "./pulse.js";
import * as route from "./route.js";
import * as worker from "./worker.js";
import { ago } from "./words.js";

const VIEWS = { people: person, overview, pair, map, model, worker };
const PLACES = { people: "people", overview: "people", pair: "pair", map: "map", model: "model", worker: "worker" };

let view = null;

function follow(asked) {
  const before = view;
  view = asked.view === "people" ? peopleView(asked) : asked.view;
  if (before !== view) change(before, view, asked.view);
  VIEWS[view].show(asked);
  feed.mark(asked.user);
  document.title = title(asked);
}

const peopleView = ({ user, query }) => (user === null ? "overview" : query.get("with") ? "pair" : "people");

function change(before, after, tab) {
  if (before) VIEWS[before].close();
  for (const place of new Set(Object.values(PLACES))) $(place).hidden = place !== PLACES[after];
  for (const link of document.querySelectorAll("nav [data-view]")) {
    if (link.dataset.view === tab) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.body.classList.toggle("chosen", after === "people");
  if (before) scrollTo(0, 0);
}

function title({ view: name, user, query }) {
  const names = { map: "map of interests", model: "model", worker: "worker" };
  const what = names[name] ?? [user, query.get("with")].filter(Boolean).join(" and ");
  return what ? `${what} · streamer` : "streamer";
}

function choose(id) {
  route.go(route.userAddress(id));
  $("person").focus({ preventScroll: true }); // the list moves on, and readers hear the profile
  if ($("person").getBoundingClientRect().top < 0) $("person").scrollIntoView();
}

function tick() {
  for (const time of document.querySelectorAll("time[data-ts]")) say(time, ago(Number(time.dataset.ts)));
}

$("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address stays
  $("main").focus();
});
setInterval(tick, 1000);

hints.start();
find.start($("find"), { label: "Find a person", button: "Show", choose });
route.start(follow);
feed.start(choose);
pulse.start(() => {
  wake();
  VIEWS[view].refresh();
});
