// Titles of items: asked for in bulk, remembered, filled in when they come.

import { get } from "./api.js";
import { el, say } from "./dom.js";

const MOST = 5000; // titles remembered
const AT_ONCE = 100; // what one question may hold
const AGAIN_MS = 3000; // the catalogue may still be on its way, or the worker busy
const titles = new Map();
const waiting = new WeakMap(); // root → timer of the next question

/** An item by its title, or by its id until the title is known. */
export function name(id) {
  return el("span", { class: "item", "data-item": id, title: id }, titles.get(id) || id);
}

/** Ask for the titles of the items shown under `root`, and fill them in. Ids stay where there is no title, and are asked for again. */
export async function fill(root) {
  clearTimeout(waiting.get(root));
  if (titles.size > MOST) titles.clear();
  const unknown = missing(root);
  for (let at = 0; at < unknown.length; at += AT_ONCE) await learn(unknown.slice(at, at + AT_ONCE));
  for (const node of root.querySelectorAll("[data-item]")) say(node, titles.get(node.dataset.item) || node.dataset.item);
  if (root.isConnected && missing(root).length) waiting.set(root, setTimeout(fill, AGAIN_MS, root));
}

function missing(root) {
  const shown = [...root.querySelectorAll("[data-item]")].map((node) => node.dataset.item);
  return [...new Set(shown)].filter((id) => !titles.has(id));
}

async function learn(ids) {
  const query = ids.map((id) => `id=${encodeURIComponent(id)}`).join("&");
  const { items } = await get(`/v1/items?${query}`).catch(() => ({ items: [] }));
  for (const item of items) titles.set(item.item_id, item.title);
}
