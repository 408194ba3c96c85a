// The worker's API: questions, and live streams that come back by themselves.

const TOKEN = "streamer-token"; // kept for this tab only
const ANSWER_MS = 8000;
const SILENCE_MS = 40000; // more than two heartbeats: the connection is dead, whatever the socket says
const WAITS_MS = [500, 1000, 2000, 4000, 8000];

/** What went wrong: `status` is 0 when nothing came back at all. */
export class ApiError extends Error {
  constructor(status, detail, retryAfterS = 0, kind = "") {
    super(detail);
    Object.assign(this, { status, retryAfterS, kind });
  }

  /** Whether waiting helps: the worker is away, recovers, or was asked too often. */
  get passes() {
    return [0, 429, 503].includes(this.status);
  }
}

export const setToken = (token) => sessionStorage.setItem(TOKEN, token);
export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;

/** Ask for JSON. Throws ApiError; an abort by `signal` is thrown as it is. */
export async function get(path, signal) {
  const limit = AbortSignal.timeout(ANSWER_MS);
  const response = await ask(path, signal ? AbortSignal.any([signal, limit]) : limit, signal);
  try {
    return await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "The answer broke off.");
  }
}

export const profilePath = (id) => `/v1/users/${encodeURIComponent(id)}/profile`;

async function ask(path, signal, outer) {
  let response;
  try {
    response = await fetch(path, { signal, headers: authorization(), cache: "no-store" });
  } catch (error) {
    if (outer?.aborted) throw error;
    throw new ApiError(0, error.name === "TimeoutError" ? "The worker takes too long to answer." : "The worker does not answer.");
  }
  if (!response.ok) throw await problem(response);
  return response;
}

function authorization() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function problem(response) {
  const body = await response.json().catch(() => ({}));
  const kind = String(body.type ?? "").split(":").pop();
  return new ApiError(response.status, body.detail ?? response.statusText, Number(response.headers.get("Retry-After")), kind);
}

// Streams

const open = new Set();

/** Wake all streams that wait to connect again. */
export function wake() {
  for (const stream of open) stream.wake();
}

/** Follow server-sent events. `on(name, value)` gets each; `state(error | null)` tells when it breaks and is back. */
export function follow(path, on, state = () => {}) {
  const stop = new AbortController();
  const stream = { wake() {} };
  open.add(stream);
  stop.signal.addEventListener("abort", () => open.delete(stream));
  run(path, on, state, stop.signal, stream);
  return () => {
    stop.abort();
    stream.wake();
  };
}

async function run(path, on, state, stop, stream) {
  for (let failures = 0; !stop.aborted; failures++) {
    try {
      await visible(stop);
      await listen(path, stop, (name, value) => { failures = 0; on(name, value); }, () => state(null));
    } catch (error) {
      if (!stop.aborted) state(error);
    }
    if (!stop.aborted) await pause(WAITS_MS[Math.min(failures, WAITS_MS.length - 1)], stream);
  }
}

async function listen(path, stop, on, opened) {
  const connection = new AbortController();
  const signal = AbortSignal.any([stop, connection.signal]);
  const response = await ask(path, signal, stop);
  opened();
  const hidden = () => document.hidden && connection.abort(); // a browser has six connections for all its tabs
  document.addEventListener("visibilitychange", hidden);
  try {
    await read(response.body.pipeThrough(new TextDecoderStream()).getReader(), connection, on);
  } catch (error) {
    if (!connection.signal.aborted) throw error;
  } finally {
    document.removeEventListener("visibilitychange", hidden);
    connection.abort();
  }
}

async function read(reader, connection, on) {
  let rest = "";
  for (;;) {
    const silence = setTimeout(() => connection.abort(), SILENCE_MS);
    const { value, done } = await reader.read().finally(() => clearTimeout(silence));
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) deliver(block, on);
  }
}

function deliver(block, on) {
  const fields = Object.fromEntries(block.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
  if (fields.data) on(fields.event ?? "message", JSON.parse(fields.data));
}

const pause = (ms, stream) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  stream.wake = () => { clearTimeout(timer); resolve(); };
});

const visible = (stop) => new Promise((resolve) => {
  const check = () => {
    if (document.hidden && !stop.aborted) return;
    document.removeEventListener("visibilitychange", check);
    resolve();
  };
  document.addEventListener("visibilitychange", check);
  stop.addEventListener("abort", check);
  check();
});
