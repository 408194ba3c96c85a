// Building elements. No markup in strings anywhere: what comes from events can never become markup.

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "g", "path", "circle", "line", "rect", "text"]);

/** A new element; `on…` props are listeners, `--…` props CSS variables, the rest attributes (null and false are left out). */
export function el(tag, props = {}, ...children) {
  const node = DRAWN.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  set(node, props);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Set props of an element, as `el` does. */
export function set(node, props) {
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) node.style.setProperty(name, value);
    else if (value === null || value === undefined || value === false) node.removeAttribute(name);
    else node.setAttribute(name, value === true ? "" : value);
  }
}

export const $ = (id) => document.getElementById(id);

/** Write text only when it differs: screen readers and the eye are left alone otherwise. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Show an element's background briefly, as something that has just changed. */
export function flash(node) {
  node.classList.remove("fresh");
  void node.offsetWidth; // the animation starts again only after a layout without the class
  node.classList.add("fresh");
}

/** Rows by key that stay where they are: `make(key)` gives `{node, update(value, …)}`, `place` shows these values in this order. */
export function keyed(list, make) {
  const rows = new Map();
  return function place(values, keyOf, ...more) {
    const keys = new Set(values.map(keyOf));
    for (const [key, row] of rows) if (!keys.has(key) && rows.delete(key)) row.node.remove();
    values.forEach((value, at) => {
      const key = keyOf(value);
      if (!rows.has(key)) rows.set(key, make(key));
      const row = rows.get(key);
      if (list.children[at] !== row.node) list.insertBefore(row.node, list.children[at] ?? null);
      row.update(value, ...more);
    });
    return rows;
  };
}

/** A table: `columns` are heads, `rows` lists of cells; the first cell of a row is its head. */
export function table(caption, columns, rows) {
  const line = ([first, ...rest]) => el("tr", {}, el("th", { scope: "row" }, first), rest.map((cell) => el("td", {}, cell)));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", {}, el("caption", { class: "unseen" }, caption),
      el("thead", {}, el("tr", {}, columns.map((column) => el("th", { scope: "col" }, column)))),
      el("tbody", {}, rows.map(line))));
}
