// A part of the page that shows one answer of the API: it says so while it waits, has nothing, or fails.

import { ApiError, get } from "./api.js";
import { el } from "./dom.js";
import { sentence } from "./words.js";

const PATIENCE_MS = 200; // a quick answer shows no skeleton

/** A box for the answer to `path`: `draw(answer)` gives what to show, or null to have `nothing` said. `{node, ask, stop}`.
 *
 *  An answer that is on show stays when the next one fails. `ask({every_s})` asks at most so often. */
export function asked(path, { draw, nothing, lines = 4 }) {
  const node = el("div", { class: "asked", "aria-busy": "false" });
  let abort = null, drawn = false, askedAt = -Infinity, timer = 0;

  async function ask({ every_s = 0 } = {}) {
    clearTimeout(timer);
    const wait_ms = askedAt + every_s * 1000 - performance.now();
    if (wait_ms > 0) return void (timer = setTimeout(ask, wait_ms));
    askedAt = performance.now();
    abort?.abort();
    const mine = (abort = new AbortController());
    const late = setTimeout(() => drawn || busy(), PATIENCE_MS);
    try {
      show(await get(path, mine.signal));
    } catch (error) {
      if (!mine.signal.aborted) fail(error);
    } finally {
      clearTimeout(late);
    }
  }

  function show(answer) {
    const content = draw(answer);
    drawn = content !== null;
    fill(content ?? el("p", { class: "note" }, nothing));
  }

  function fail(error) {
    if (!(error instanceof ApiError)) throw error;
    const { passes } = error;
    if (passes) timer = setTimeout(ask, (error.retryAfterS || 3) * 1000);
    if (drawn) return;
    fill(el("p", { class: "note" }, passes ? `${sentence(error.message)} It appears here as soon as the worker can tell.` : sentence(error.message)),
      passes || error.status < 500 || error.status === 501 ? null : el("button", { type: "button", class: "quiet", onclick: () => ask() }, "Try again"));
  }

  function busy() {
    node.setAttribute("aria-busy", "true");
    node.replaceChildren(skeleton(lines));
  }

  function fill(...content) {
    node.setAttribute("aria-busy", "false");
    node.replaceChildren(...content.filter(Boolean));
  }

  function stop() {
    clearTimeout(timer);
    abort?.abort();
  }

  return { node, ask, stop };
}

/** Grey lines where something will be. */
export function skeleton(lines) {
  const widths = [60, 90, 75, 62, 50, 38, 30, 45].slice(0, lines);
  return el("div", { class: "skeleton" }, el("span", { class: "unseen" }, "Loading"), widths.map((width) => el("i", { "--width": `${width}%` })));
}
