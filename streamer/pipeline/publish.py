"""Publish: users' rows become profiles. Numbers are computed in bulk; Python only puts the strings in."""

import base64
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.events import KIND_NAMES
from streamer.model.interests import EVENTS, MAIN, RECENT, shares
from streamer.pipeline import gate
from streamer.pipeline.assemble import currency_name
from streamer.pipeline.gate import ADDED, DROPPED, SHIFTED, Assessed, Thresholds
from streamer.pipeline.hashing import lookup
from streamer.pipeline.layout import N_RECENT, N_SPEND, N_TAGS, Users
from streamer.pipeline.space import ItemSpace
from streamer.profile import Activity, Change, Interest, ItemEvent, Profile, What

BECAUSE: Final = 3  # items named behind an interest: enough for a sentence
MIN_PRIOR: Final = 1e-6  # floor under P0: lift of a tag that nobody else has stays finite

encode = msgspec.json.Encoder().encode


class Scales(NamedTuple):
    """How profiles are read off rows; see the settings of the same names."""

    interests: int
    smoothing: float
    half_life_ms: float
    recent_half_life_ms: float


class Names(NamedTuple):
    """From hashes back to names; None where nobody knows it any more."""

    item: Callable[[int], str | None]
    tag: Callable[[int], str | None]


class Policy(NamedTuple):
    """When profiles are published, and how they are read."""

    thresholds: Thresholds
    scales: Scales


class World(NamedTuple):
    """What profiles are made from: the same for all users of a partition."""

    users: Users
    space: ItemSpace
    names: Names
    policy: Policy


class Numbers(NamedTuple):
    """What is computed in bulk for n users and their first `k` interests."""

    order: NDArray[np.int64]  # [n, k] places of the tags, strongest first; -1: none
    weight: NDArray[np.float64]
    recent: NDArray[np.float64]
    events: NDArray[np.float64]
    because: NDArray[np.int64]  # [n, k, BECAUSE] places of recent items; -1: none


class Reading(NamedTuple):
    """Users read in bulk: row i of every array is about the user in `slots[i]`."""

    world: World
    slots: NDArray[np.int64]
    assessed: Assessed
    numbers: Numbers
    vectors: NDArray[np.float32]


def assess(world: World, slots: NDArray[np.int64]) -> Assessed:
    """Hold every user against what was last published. Changes nothing."""
    return gate.assess(world.users, slots, world.space.catalogue, world.policy.thresholds)


def fold_in(world: World, slots: NDArray[np.int64]) -> NDArray[np.float32]:
    """The vectors f32[n, dim] of users. Changes nothing."""
    counts = world.users.head["counts"][slots, N_RECENT].astype(np.int64)
    return world.space.fold_in(world.users.recent_item[slots], counts)


def read(world: World, slots: NDArray[np.int64], assessed: Assessed, vectors: NDArray[np.float32]) -> Reading:
    """Order the interests and gather their numbers. Changes nothing."""
    n, scales, catalogue = len(slots), world.policy.scales, world.space.catalogue
    k, items = scales.interests, catalogue.table
    out = Numbers(
        np.full((n, k), -1), np.zeros((n, k)), np.zeros((n, k)), np.zeros((n, k)), np.full((n, k, BECAUSE), -1)
    )
    lives = (scales.half_life_ms, scales.recent_half_life_ms, scales.smoothing)
    _read(world.users, slots, assessed, lives, items.keys, items.values, catalogue.tags, catalogue.n_tags, out)
    return Reading(world, slots, assessed, out, vectors)


def profile(reading: Reading, row: int, user_id: str, changed: Sequence[Change], cause: str) -> Profile:
    """The profile of the user in `row`."""
    world, slot = reading.world, int(reading.slots[row])
    head, vector = world.users.head[slot], reading.vectors[row]
    recent = _recent_items(world.users, slot, int(head["counts"][N_RECENT]), world.names)
    return Profile(
        user_id=user_id,
        version=int(head["version"]),
        as_of=int(head["as_of"]),
        published_at=int(head["published_at"]),
        interests=_interests(reading, row, recent),
        vector=base64.b64encode(vector.astype("<f4").tobytes()).decode(),
        vector_dim=len(vector),
        model=world.space.model,
        activity=_activity(world.users, slot),
        recent_items=tuple(item for item in recent if item is not None),
        changed=tuple(changed),
        cause=cause,
    )


def changes(reading: Reading, row: int) -> list[Change]:
    """What happened to the interests since the last profile, strongest first."""
    (users, _, names, _), slot, assessed = reading.world, int(reading.slots[row]), reading.assessed
    found = []
    if lost := int(users.head["lost_tag"][slot]):
        found.append(Change("interest_dropped", tag=names.tag(lost), after=0.0))
    for j in np.flatnonzero(assessed.status[row]).tolist():
        before = max(float(users.tag_published[slot, j]), 0.0)
        share = float(assessed.share[row, j])
        what = _WHAT[int(assessed.status[row, j])]
        found.append(Change(what, names.tag(int(users.tag[slot, j])), round(before, 4), round(share, 4)))
    return sorted(found, key=lambda change: -abs((change.after or 0) - (change.before or 0)))


_WHAT: Final[dict[int, What]] = {ADDED: "interest_added", DROPPED: "interest_dropped", SHIFTED: "interest_shifted"}


def _interests(reading: Reading, row: int, recent: list[ItemEvent | None]) -> tuple[Interest, ...]:
    (users, _, names, _), slot, assessed, numbers = reading.world, reading.slots[row], reading.assessed, reading.numbers
    order = numbers.order[row][numbers.order[row] >= 0]
    n = len(order)
    columns = (
        users.tag[slot, order],
        users.tag_ts[slot, order],
        assessed.share[row, order],
        assessed.prior[row, order],
        numbers.weight[row, :n],
        numbers.recent[row, :n],
        numbers.events[row, :n],
        numbers.because[row, :n],
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return tuple(_interest(name, recent, *rest) for tag, *rest in rows if (name := names.tag(tag)) is not None)


def _interest(
    tag: str,
    recent_items: list[ItemEvent | None],
    last_ts: int,
    share: float,
    prior: float,
    weight: float,
    recent: float,
    events: float,
    because: list[int],
) -> Interest:
    return Interest(
        tag=tag,
        weight=round(weight, 6),
        share=round(share, 6),
        recent=round(recent, 6),
        lift=round(share / max(prior, MIN_PRIOR), 3),
        events=round(events, 4),
        last_ts=last_ts,
        because=tuple(event for k in because if k >= 0 and (event := recent_items[k]) is not None),
    )


def _recent_items(users: Users, slot: int, n: int, names: Names) -> list[ItemEvent | None]:
    items, times = users.recent_item[slot, :n].tolist(), users.recent_ts[slot, :n].tolist()
    return [
        ItemEvent(name, ts >> 8, KIND_NAMES[ts & 255]) if (name := names.item(item)) is not None else None
        for item, ts in zip(items, times, strict=True)
    ]


def _activity(users: Users, slot: int) -> Activity:
    head = users.head[slot]
    n = int(head["counts"][N_SPEND])
    spend = zip(users.spend_currency[slot, :n].tolist(), users.spend_micros[slot, :n].tolist(), strict=True)
    return Activity(
        clicks=int(head["clicks"]),
        purchases=int(head["purchases"]),
        spend={currency_name(code): round(micros / 1e6, 6) for code, micros in spend},
        first_seen=int(head["first_seen"]),
        last_seen=int(head["as_of"]),
        by_hour=tuple(head["by_hour"].tolist()),
    )


@njit(cache=True)
def _read(users, slots, assessed, lives, item_keys, item_values, item_tags, n_item_tags, out):  # type: ignore[no-untyped-def]
    half_life, recent_half_life, smoothing = lives
    for i in range(len(slots)):
        s = slots[i]
        n = np.int64(users.head[s].counts[N_TAGS])
        now = users.head[s].as_of
        order = np.argsort(-assessed.share[i, :n], kind="mergesort")
        recent = np.empty(n)
        shares(
            users.tag_weight[s], users.tag_ts[s], n, now, RECENT, recent_half_life, assessed.prior[i], smoothing, recent
        )
        for r in range(min(n, out.order.shape[1])):
            j = order[r]
            fade = 2.0 ** (-(now - users.tag_ts[s, j]) / half_life)
            out.order[i, r] = j
            out.weight[i, r] = users.tag_weight[s, j, MAIN] * fade
            out.events[i, r] = users.tag_weight[s, j, EVENTS] * fade
            out.recent[i, r] = recent[j]
        _find_because(users, s, i, item_keys, item_values, item_tags, n_item_tags, out)


@njit(cache=True)
def _find_because(users, s, i, item_keys, item_values, item_tags, n_item_tags, out):  # type: ignore[no-untyped-def]
    """Recent items that carry an interest's tag, newest first."""
    for k in range(np.int64(users.head[s].counts[N_RECENT])):
        item = lookup(item_keys, item_values, users.recent_item[s, k])
        if item < 0:
            continue
        for t in range(n_item_tags[item]):
            for r in range(out.order.shape[1]):
                j = out.order[i, r]
                if j < 0:
                    break
                if users.tag[s, j] == item_tags[item, t]:
                    _add_because(users.recent_item[s], k, out.because[i, r])
                    break


@njit(cache=True)
def _add_because(recent_items, k, because):  # type: ignore[no-untyped-def]
    """Name recent item `k`, unless the same item is named already or there is no place left."""
    for b in range(len(because)):
        if because[b] < 0:
            because[b] = k
            return
        if recent_items[because[b]] == recent_items[k]:
            return
