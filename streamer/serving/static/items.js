// Titles of items: asked for in bulk, remembered, filled in when they come.

import { get } from "./api.js";
import { el, say } from "./dom.js";

const MOST = 5000; // titles remembered
const AT_ONCE = 100; // what one question may hold
const titles = new Map();

/** An item by its title, or by its id until the title is known. */
export function name(id) {
  return el("span", { class: "item", "data-item": id, title: id }, titles.get(id) || id);
}

/** Ask for the titles of the items shown under `root`, and fill them in. Without titles, ids stay. */
export async function fill(root) {
  const shown = [...root.querySelectorAll("[data-item]")];
  const unknown = [...new Set(shown.map((node) => node.dataset.item))].filter((id) => !titles.has(id));
  if (titles.size > MOST) titles.clear();
  for (let at = 0; at < unknown.length; at += AT_ONCE) await learn(unknown.slice(at, at + AT_ONCE));
  for (const node of root.querySelectorAll("[data-item]")) say(node, titles.get(node.dataset.item) || node.dataset.item);
}

async function learn(ids) {
  const query = ids.map((id) => `id=${encodeURIComponent(id)}`).join("&");
  const { items } = await get(`/v1/items?${query}`).catch(() => ({ items: null }));
  if (!items) return;
  for (const id of ids) titles.set(id, "");
  for (const item of items) titles.set(item.item_id, item.title);
}
