"""How soon a profile follows: made-up users do what one person did, and from one event to the next what another did.

After each event that follows the switch the profile's shares are held against the tags of both, by cosine. Told is the
number of events until they are nearer to the new ones.
"""

import math
from collections import Counter
from collections.abc import Mapping
from itertools import count
from typing import Any, Final

import msgspec
import numpy as np

from streamer.pipeline import publish
from streamer.tools.evaluate.workers import Worker, Workers
from streamer.tools.lines import Line

EVENTS: Final = 20  # before the switch, and after it: what the profile's recent items hold
SWITCHES: Final = 50
STEP_MS: Final = 60_000


def recovery(workers: Workers, taken: Mapping[str, Mapping[str, int]], now_ms: int) -> dict[str, float]:
    """Median and mean number of events that profiles take, over so many `users`; EVENTS where that was not enough.

    `taken`: the items that each person took, oldest first. Nobody with too few of them counts.
    """
    people = [list(items)[:EVENTS] for items in taken.values() if len(items) >= EVENTS][: 2 * SWITCHES]
    pairs = list(zip(people[::2], people[1::2], strict=False))
    took = [_switch(workers, n, old, new, now_ms) for n, (old, new) in enumerate(pairs)]
    if not took:
        return {"users": 0}
    return {"users": len(took), "median": float(np.median(took)), "mean": float(np.mean(took))}


def _switch(workers: Workers, number: int, old: list[str], new: list[str], now_ms: int) -> int:
    user_id = f"\x00switch {number}"  # nobody is called so
    worker, ts = workers.of(user_id.encode()), count(now_ms, STEP_MS)
    before, after = _tags(worker, old), _tags(worker, new)
    for item_id in old:
        _click(worker, user_id, item_id, next(ts))
    for n, item_id in enumerate(new, start=1):
        _click(worker, user_id, item_id, next(ts))
        shares = _shares(worker, user_id)
        if _cosine(shares, after) > _cosine(shares, before):
            return n
    return EVENTS


def _click(worker: Worker, user_id: str, item_id: str, ts: int) -> None:
    event = {"event_id": f"{user_id} {ts}", "user_id": user_id, "item_id": item_id, "ts": ts}
    worker.partition.apply_events(worker.decode(Line(0, "clicks", user_id.encode(), msgspec.json.encode(event), ts)))


def _shares(worker: Worker, user_id: str) -> dict[str, float]:
    slot = worker.shared.cache.find(worker.partition.number, user_id.encode())
    if slot is None:
        return {}
    profile = publish.profile(worker.partition.world, slot, user_id)
    return {interest.tag: interest.share for interest in profile.interests}


def _tags(worker: Worker, item_ids: list[str]) -> Counter[str]:
    catalogue = worker.shared.catalogue
    slots = [catalogue.see(item_id) for item_id in item_ids]
    return Counter(
        catalogue.tag_names[key] for slot in slots for key in catalogue.tags[slot, : catalogue.n_tags[slot]].tolist()
    )


def _cosine(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    length = math.hypot(*a.values()) * math.hypot(*b.values())
    return sum(value * b.get(key, 0) for key, value in a.items()) / length if length else 0.0
