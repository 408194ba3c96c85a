// Building elements. No markup in strings anywhere: what comes from events can never become markup.

const SVG = "http://www.w3.org/2000/svg";

/** A new element; `on…` props are listeners, `--…` props CSS variables, the rest attributes (null and false are left out). */
export function el(tag, props = {}, ...children) {
  const node = tag === "svg" || tag === "polyline" ? document.createElementNS(SVG, tag) : document.createElement(tag);
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
