// One person's profile, kept: asked for once, then followed by its own stream. Knows nothing of how it looks.

import { ApiError, follow, get, profilePath } from "./api.js";

const AGAIN_S = 3; // where the answer does not say

/** Keep a profile. `shown(profile, live)` gets each version, newest last; `failed(error, again)` what stands in the way.
 *
 *  Waits out a worker that recovers or is away by itself. Returns `{again, stop}`. */
export function keep(id, shown, failed) {
  const abort = new AbortController();
  let latest = null, stream = null, timer = 0;

  async function load() {
    clearTimeout(timer);
    try {
      take(await get(profilePath(id), abort.signal), false);
    } catch (error) {
      if (!abort.signal.aborted) fail(error);
    }
  }

  function take(profile, live) {
    if (latest && profile.version < latest.version) return;
    latest = profile;
    shown(profile, live);
    listen();
  }

  function listen() {
    stream ??= follow(`/v1/changes?user=${encodeURIComponent(id)}`, (name, value) => {
      if (name === "profile") take(value, true);
    }, (error) => {
      if (!error) load(); // what was published before the stream stood
    });
  }

  function fail(error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.passes) later(error.retryAfterS || AGAIN_S);
    if (error.passes && latest) return; // what is shown stays; the banner tells
    if (error.status === 404) listen(); // the first event makes the profile
    else silence();
    failed(error, load);
  }

  const later = (seconds) => { timer = setTimeout(load, seconds * 1000); };

  function silence() {
    stream?.();
    stream = null;
  }

  function stop() {
    abort.abort();
    clearTimeout(timer);
    silence();
  }

  load();
  return { again: load, stop };
}
