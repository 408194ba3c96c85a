// The explorer page. Knows only the HTTP API; the address (#/user/…) says who is shown.

import { wake } from "./api.js";
import { $, say } from "./dom.js";
import * as feed from "./feed.js";
import * as person from "./person.js";
import * as status from "./status.js";
import { ago } from "./words.js";

const PREFIX = "#/user/";

function chosen() {
  if (!location.hash.startsWith(PREFIX)) return null;
  try {
    return decodeURIComponent(location.hash.slice(PREFIX.length));
  } catch {
    return null; // someone has cut the address in the middle of a character
  }
}

function choose(id) {
  location.hash = PREFIX + encodeURIComponent(id);
  $("person").focus({ preventScroll: true }); // the list moves on, and readers hear the profile
  if ($("person").getBoundingClientRect().top < 0) $("person").scrollIntoView();
}

function follow() {
  const id = chosen();
  document.body.classList.toggle("chosen", id !== null);
  person.show(id, () => feed.someone() && choose(feed.someone()));
  feed.mark(id);
}

function tick() {
  for (const time of document.querySelectorAll("time[data-ts]")) say(time, ago(Number(time.dataset.ts)));
}

// A hint opens under its word, within the window.
document.addEventListener("click", ({ target }) => {
  const word = target.closest("[popovertarget]");
  if (!word) return;
  const { left, bottom } = word.getBoundingClientRect();
  const tip = $(word.getAttribute("popovertarget"));
  tip.style.setProperty("--left", `${left}px`);
  tip.style.setProperty("--top", `${bottom + 8}px`);
}, { capture: true });

$("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = $("find-id").value.trim();
  if (id) choose(id);
});
addEventListener("hashchange", () => {
  const anchor = location.hash && !location.hash.startsWith("#/"); // a place of the page, such as the skip link's
  if (!anchor) follow();
});
setInterval(tick, 1000);

follow();
feed.start(choose);
status.start(() => {
  wake();
  person.refresh();
});
