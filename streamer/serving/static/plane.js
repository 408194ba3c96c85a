// The drawing of the map: dots and names on a plane that can be moved and enlarged.

import { el, keyed, say, set } from "./dom.js";

const MARGIN = 28; // pixels
const CLOSEST = 8; // times
const LETTER = 0.56; // of the font size: the mean width of a letter

/** A plane: `{node, draw(map, colourOf, tag), stop}`. `person(id)` and `tag(tag)` are called for what is clicked. */
export function plane({ person, tag: pickTag }) {
  const dots = el("g", { class: "dots" }), names = el("g", { class: "names" });
  const svg = el("svg", { "aria-hidden": "true" }, dots, names);
  const tip = el("output", { class: "readout", hidden: true, "aria-hidden": "true" });
  const button = (text, label, act) => el("button", { type: "button", class: "quiet", "aria-label": label, onclick: act }, text);
  const node = el("div", { class: "plane" }, svg, tip, el("div", { class: "zoom" },
    button("+", "Closer", () => zoom(1.6)), button("−", "Farther", () => zoom(1 / 1.6)), button("⤢", "The whole map", reset)));
  const placeDots = keyed(dots, dot);
  const sight = { x: 0, y: 0, times: 1 };
  const size = { width: 0, height: 0 };
  let last = null, frame = null, moved = false;

  function draw(map, colourOf, tag) {
    last = [map, colourOf, tag];
    if (!size.width) return;
    frame = { x: stretched(map, "x"), y: stretched(map, "y") };
    svg.classList.toggle("picking", tag !== null);
    placeDots(map.points, ({ user_id: id }) => id, at, colourOf, tag);
    names.replaceChildren(...labels(map.tags, tag));
  }

  /** Where a place of the map lies on the screen. */
  function at({ x, y }) {
    return [
      size.width / 2 + (frame.x(x) - sight.x) * sight.times * (size.width / 2 - MARGIN),
      size.height / 2 - (frame.y(y) - sight.y) * sight.times * (size.height / 2 - MARGIN)];
  }

  /** Names of tags, the strongest first; one that would cover another is left out until one looks closer. */
  function labels(tags, chosen) {
    const most = Math.max(...tags.map(({ share }) => share));
    const taken = [], shown = [];
    for (const one of [...tags].sort((a, b) => (b.tag === chosen) - (a.tag === chosen) || b.share - a.share)) {
      const [x, y] = at(one), font = 11 + 7 * Math.sqrt(one.share / most), half = (one.tag.length * font * LETTER) / 2;
      const place = { left: x - half, right: x + half, top: y - font, bottom: y + 4 };
      const hidden = place.left < 0 || place.right > size.width || place.top < 0 || place.bottom > size.height;
      if (hidden || taken.some((other) => overlaps(place, other))) continue;
      taken.push(place);
      shown.push(el("text", { x: x.toFixed(1), y: y.toFixed(1), "data-tag": one.tag, class: one.tag === chosen ? "chosen" : null, "--size": `${font.toFixed(1)}px` }, one.tag));
    }
    return shown;
  }

  function zoom(times, x = size.width / 2, y = size.height / 2) {
    const before = sight.times;
    sight.times = Math.min(CLOSEST, Math.max(1, before * times));
    const part = (1 / before - 1 / sight.times);
    shift(((x - size.width / 2) / (size.width / 2 - MARGIN)) * part, ((size.height / 2 - y) / (size.height / 2 - MARGIN)) * part);
  }

  function shift(x, y) {
    const most = 1 - 1 / sight.times;
    sight.x = Math.min(most, Math.max(-most, sight.x + x));
    sight.y = Math.min(most, Math.max(-most, sight.y + y));
    if (last) draw(...last);
  }

  function reset() {
    Object.assign(sight, { x: 0, y: 0, times: 1 });
    shift(0, 0);
  }

  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && sight.times === 1 && event.deltaY > 0) return; // nothing to leave: the page scrolls
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15, event.offsetX, event.offsetY);
  }, { passive: false });
  svg.addEventListener("pointerdown", () => { moved = false; });
  svg.addEventListener("pointermove", (event) => {
    if (event.buttons & 1 && sight.times > 1) {
      moved = moved || Math.abs(event.movementX) + Math.abs(event.movementY) > 2;
      shift(-event.movementX / sight.times / (size.width / 2 - MARGIN), event.movementY / sight.times / (size.height / 2 - MARGIN));
    }
    hover(event);
  });
  svg.addEventListener("pointerleave", () => { tip.hidden = true; });
  svg.addEventListener("click", ({ target }) => {
    if (moved) return; // it was dragged
    if (target.dataset.user) person(target.dataset.user);
    else if (target.dataset.tag) pickTag(target.dataset.tag);
  });

  function hover({ target, offsetX, offsetY }) {
    const id = target.dataset.user;
    tip.hidden = !id;
    if (!id) return;
    say(tip, `${id} · ${target.dataset.top}`);
    set(tip, { "--left": `${offsetX}px`, "--top": `${offsetY}px`, class: offsetX > size.width * 0.6 ? "readout left" : "readout" });
  }

  const watch = new ResizeObserver(([{ contentRect: { width, height } }]) => {
    Object.assign(size, { width, height });
    if (last && width) draw(...last);
  });
  watch.observe(svg);
  return { node, draw, stop: () => watch.disconnect() };
}

function dot(id) {
  const node = el("circle", { r: 4, "data-user": id });
  const update = (point, at, colourOf, tag) => {
    const [x, y] = at(point);
    set(node, { "--x": `${x.toFixed(1)}px`, "--y": `${y.toFixed(1)}px`, "--colour": colourOf.get(point.top) ?? "var(--c8)", "data-top": point.top, class: point.top === tag ? "chosen" : null });
  };
  return { node, update };
}

/** The map fills the plane, whatever part of -1 to 1 it takes. */
function stretched({ points, tags }, axis) {
  const values = [...points, ...tags].map((one) => one[axis]);
  const low = Math.min(...values), high = Math.max(...values);
  return (value) => (high > low ? (2 * (value - low)) / (high - low) - 1 : 0);
}

const overlaps = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
