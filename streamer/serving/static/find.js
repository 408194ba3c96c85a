// A field that finds people, with suggestions while one types (the ARIA pattern “combobox with listbox”).

import { get } from "./api.js";
import { el, set } from "./dom.js";

const SHOWN = 8;
const PAUSE_MS = 120; // between two keys of someone who goes on typing

let fields = 0;

/** Make `form` such a field; `choose(id)` gets whom one picks or types. Returns the input. */
export function start(form, { label, button, choose }) {
  const name = `find-${fields++}`;
  const list = el("ul", { id: `${name}-list`, class: "suggestions", role: "listbox", "aria-label": "People", hidden: true });
  const input = el("input", {
    id: name, role: "combobox", "aria-expanded": "false", "aria-controls": list.id, "aria-autocomplete": "list", autocomplete: "off",
    autocapitalize: "none", spellcheck: "false", enterkeyhint: "search", placeholder: "user id", required: true,
  });
  form.append(el("label", { for: name }, label), el("div", {}, input, list), el("button", { type: "submit" }, button));
  const suggestions = new Suggestions(input, list, pick);
  function pick(id) {
    suggestions.close();
    input.value = id;
    choose(id);
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const id = suggestions.marked ?? input.value.trim();
    if (id) pick(id);
  });
  return input;
}

class Suggestions {
  constructor(input, list, pick) {
    Object.assign(this, { input, list, at: -1, asked: null, timer: 0 });
    input.addEventListener("input", () => this.soon());
    input.addEventListener("focus", () => this.soon());
    input.addEventListener("blur", () => this.close());
    input.addEventListener("keydown", (event) => this.key(event));
    list.addEventListener("pointerdown", (event) => {
      event.preventDefault(); // the field keeps the focus
      const option = event.target.closest("[role=option]");
      if (option) pick(option.textContent);
    });
  }

  get marked() {
    return this.list.children[this.at]?.textContent;
  }

  soon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), PAUSE_MS);
  }

  async ask() {
    this.asked?.abort();
    this.asked = new AbortController();
    const prefix = this.input.value.trim();
    try {
      const { users } = await get(`/v1/users?prefix=${encodeURIComponent(prefix)}&n=${SHOWN}`, this.asked.signal);
      if (document.activeElement === this.input) this.open(users.map(({ user_id: id }) => id).filter((id) => id !== prefix));
    } catch {
      this.close(); // one can do without: a whole id is found anyway
    }
  }

  open(ids) {
    const option = (id, at) => el("li", { role: "option", id: `${this.list.id}-${at}`, "aria-selected": "false" }, id);
    this.list.replaceChildren(...ids.map(option));
    this.mark(-1);
    this.show(ids.length > 0);
  }

  close() {
    clearTimeout(this.timer);
    this.asked?.abort();
    this.list.replaceChildren();
    this.mark(-1);
    this.show(false);
  }

  show(open) {
    this.list.hidden = !open;
    this.input.setAttribute("aria-expanded", String(open));
  }

  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape" && !this.list.hidden) this.close();
    else if (step && this.list.hidden) this.ask();
    else if (step) this.move(step);
    else return;
    event.preventDefault();
  }

  move(step) {
    const stops = this.list.children.length + 1; // one of them is the field itself
    this.mark(((this.at + 1 + step + stops) % stops) - 1);
  }

  mark(at) {
    this.list.children[this.at]?.setAttribute("aria-selected", "false");
    this.at = at;
    const option = this.list.children[at];
    option?.setAttribute("aria-selected", "true");
    option?.scrollIntoView({ block: "nearest" });
    set(this.input, { "aria-activedescendant": option?.id });
  }
}
