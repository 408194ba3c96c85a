// The API's description as a page: every address with its parameters, answers, and a form to ask it.

import { $, el } from "./dom.js";

const TOKEN = "streamer-token"; // the explorer page's: kept for this tab only
const SHOWN = 20000; // characters of an answer
const TELLING = ["etag", "retry-after", "x-answered-by", "x-profile-age"]; // headers worth a line

const nameOf = (schema) => schema.$ref.split("/").pop();

/** A schema in a word or two; what has a name links to it. */
function type(schema) {
  if (!schema) return "anything";
  if (schema.$ref) return el("a", { href: `#${nameOf(schema)}` }, nameOf(schema));
  if (schema.anyOf) return el("span", {}, ...schema.anyOf.flatMap((one, i) => (i ? [" or ", type(one)] : [type(one)])));
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.type === "array") return el("span", {}, "list of ", type(schema.items ?? schema.prefixItems?.[0]));
  if (schema.type === "object" && schema.additionalProperties) return el("span", {}, "values by name: ", type(schema.additionalProperties));
  return [schema.type, limits(schema)].filter(Boolean).join(", ");
}

function limits({ minimum, maximum, minLength, maxLength, default: preset }) {
  const range = minimum !== undefined && maximum !== undefined ? `${minimum} to ${maximum}` : minimum !== undefined ? `at least ${minimum}` : "";
  const length = maxLength !== undefined ? `${minLength ?? 0} to ${maxLength} characters` : "";
  return [range, length, preset !== undefined && preset !== "" ? `${JSON.stringify(preset)} where not given` : ""].filter(Boolean).join(", ");
}

const table = (head, rows) => el("table", {},
  el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))),
  el("tbody", {}, ...rows.map((cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, cell))))));

function operation(path, { operationId, summary, description, parameters, responses }) {
  const asked = parameters.filter((one) => one.in !== "header");
  return el("details", { id: `get-${operationId}` },
    el("summary", {}, el("code", {}, `GET ${path}`), el("span", {}, summary)),
    el("div", { class: "body" },
      description ? el("p", {}, description) : null,
      parameters.length ? table(["Parameter", "In", "What", "Type"], parameters.map((one) => [el("code", {}, one.name), one.in, one.description ?? "", type(one.schema)])) : null,
      table(["Answer", "What", "Type"], Object.entries(responses).map(([status, one]) => [status, one.description, answer(one)])),
      responses[200].content["text/event-stream"] ? null : ask(path, asked)));
}

function answer({ content }) {
  if (!content) return "";
  const [[kind, { schema }]] = Object.entries(content);
  return schema?.$ref ? type(schema) : kind;
}

/** A form that asks and shows what comes. */
function ask(path, parameters) {
  const inputs = parameters.map((one) => el("input", { name: one.name, required: one.required, autocomplete: "off", placeholder: `${one.schema.default ?? ""}` }));
  const shown = el("pre", { tabindex: "0", "aria-live": "polite", hidden: true });
  const fields = parameters.map((one, i) => el("label", {}, one.name, inputs[i]));
  const send = async (event) => {
    event.preventDefault();
    const address = addressOf(path, parameters, inputs.map((input) => input.value));
    shown.hidden = false;
    shown.textContent = `GET ${address} …`;
    shown.textContent = `GET ${address}\n${await fetched(address).catch((error) => `No answer: ${error.message}`)}`;
  };
  return el("div", {}, el("form", { onsubmit: send }, ...fields, el("button", { class: "quiet", type: "submit" }, "Ask")), shown);
}

function addressOf(path, parameters, values) {
  const query = new URLSearchParams();
  parameters.forEach((one, i) => {
    if (one.in === "path") path = path.replace(`{${one.name}}`, encodeURIComponent(values[i]));
    else if (values[i] && one.schema.type === "array") values[i].split(",").forEach((part) => query.append(one.name, part.trim()));
    else if (values[i]) query.append(one.name, values[i]);
  });
  return query.size ? `${path}?${query}` : path;
}

async function fetched(address) {
  const token = $("token").value;
  const response = await fetch(address, { headers: token ? { Authorization: `Bearer ${token}` } : {}, cache: "no-store" });
  const text = await response.text();
  const body = response.headers.get("Content-Type")?.includes("json") ? JSON.stringify(JSON.parse(text), null, 2) : text;
  const headers = TELLING.filter((name) => response.headers.has(name)).map((name) => `${name}: ${response.headers.get(name)}`).join("\n");
  return `${response.status}\n${headers}\n\n${body.slice(0, SHOWN)}${body.length > SHOWN ? "\n…" : ""}`;
}

function schema(name, { description, properties = {}, required = [] }) {
  const rows = Object.entries(properties).map(([field, of]) => [el("code", {}, field), type(of), required.includes(field) ? "" : "may be left out"]);
  return el("details", { id: name },
    el("summary", {}, el("code", {}, name)),
    el("div", { class: "body" }, el("p", {}, description ?? ""), table(["Field", "Type", ""], rows)));
}

/** What a link leads to is opened. */
function open() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
  target?.scrollIntoView();
}

async function main() {
  const token = $("token");
  token.value = sessionStorage.getItem(TOKEN) ?? "";
  token.addEventListener("change", () => (token.value ? sessionStorage.setItem(TOKEN, token.value) : sessionStorage.removeItem(TOKEN)));
  $("token-form").addEventListener("submit", (event) => event.preventDefault());
  const { info, paths, components } = await (await fetch("/openapi.json")).json();
  $("about").textContent = `${info.title} ${info.version}. ${info.summary}. ${info.description}`;
  $("operations").append(...Object.entries(paths).map(([path, { get }]) => operation(path, get)));
  $("schemas").append(...Object.entries(components.schemas).map(([name, of]) => schema(name, of)));
  addEventListener("hashchange", open);
  open();
}

main().catch((error) => { $("about").textContent = `The description cannot be read: ${error.message}`; });
