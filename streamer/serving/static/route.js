// The address says what is shown, so that a view can be shared: #/user/ID?with=OTHER, #/map?tag=TAG, #/model, #/worker.

const VIEWS = new Set(["map", "model", "worker"]);

/** What the address asks for: `{view, user, query}`. An address that makes no sense leads to the people. */
export function read() {
  const [path, query = ""] = location.hash.slice(1).split("?");
  const [, view = "", id = ""] = path.split("/");
  const asked = { view: VIEWS.has(view) ? view : "people", user: null, query: new URLSearchParams(query) };
  if (view === "user" && id) asked.user = decoded(id);
  return asked;
}

function decoded(id) {
  try {
    return decodeURIComponent(id);
  } catch {
    return null; // someone has cut the address in the middle of a character
  }
}

/** The address of a view; parameters without a value are left out. */
export function address(view, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value);
  return `#/${view}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

export const userAddress = (id, query) => address(`user/${encodeURIComponent(id)}`, query);

/** Go to an address. */
export const go = (hash) => { location.hash = hash; };

/** Note a detail in the address without a step in the browser's history. */
export function note(name, value) {
  const { query } = read();
  if (value) query.set(name, value);
  else query.delete(name);
  const path = location.hash.split("?")[0] || "#/";
  history.replaceState(null, "", query.size ? `${path}?${query}` : path);
}

/** Call `follow` for this address and each one after it; places of the page, such as #main, are none. */
export function start(follow) {
  addEventListener("hashchange", () => {
    if (!location.hash || location.hash.startsWith("#/")) follow(read());
  });
  follow(read());
}
