"""Publish: users' rows become profiles. Numbers are computed in bulk; Python only puts the strings in."""

import base64
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.events import KIND_NAMES
from streamer.model.interests import EVENTS, MAIN, RECENT, shares
from streamer.pipeline import gate
from streamer.pipeline.assemble import currency_name
from streamer.pipeline.gate import ADDED, DROPPED, SAME, SHIFTED, Assessed, Thresholds
from streamer.pipeline.hashing import lookup
from streamer.pipeline.layout import N_RECENT, N_SPEND, N_TAGS, Users
from streamer.pipeline.space import ItemSpace
from streamer.profile import Activity, Change, Interest, ItemEvent, Profile, What

BECAUSE: Final = 3  # items named behind an interest: enough for a sentence

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
    """The first `k` interests of n users, strongest first, as arrays [n, k]. `place` -1: there are no more."""

    place: NDArray[np.int64]  # in the user's tags
    tag: NDArray[np.uint64]
    last_ts: NDArray[np.int64]
    share: NDArray[np.float64]
    prior: NDArray[np.float64]
    weight: NDArray[np.float64]
    recent: NDArray[np.float64]
    events: NDArray[np.float64]
    because: NDArray[np.int64]  # [n, k, BECAUSE] places of recent items; -1: none


class Ragged(NamedTuple):
    """Lists of different lengths end to end, one Python list a column: row i is `at[i] : at[i + 1]` of each."""

    columns: tuple[list[Any], ...]
    at: list[int]

    def row(self, i: int) -> Iterator[tuple[Any, ...]]:
        """The entries of row i."""
        return zip(*(column[self.at[i] : self.at[i + 1]] for column in self.columns), strict=True)


class Reading(NamedTuple):
    """Users read in bulk: row i of everything is about the user in `slots[i]`."""

    world: World
    slots: NDArray[np.int64]
    assessed: Assessed
    vectors: NDArray[np.float32]
    heads: list[tuple[int, ...]]  # the numbers of HEAD_FIELDS
    hours: list[list[int]]
    interests: Ragged  # tag (a hash), the numbers of an Interest, places of three recent items
    items: Ragged  # recent items: hash, slot in the catalogue, `ts << 8 | kind`
    spend: Ragged  # currency code, millionths
    moved: Ragged  # tags whose status is not SAME: status, tag (a hash), share before and now


HEAD_FIELDS: Final = ["version", "as_of", "published_at", "clicks", "purchases", "first_seen"]


def assess(world: World, slots: NDArray[np.int64]) -> Assessed:
    """Hold every user against what was last published. Changes nothing."""
    return gate.assess(world.users, slots, world.space.catalogue, world.policy.thresholds)


def fold_in(world: World, slots: NDArray[np.int64]) -> NDArray[np.float32]:
    """The vectors f32[n, dim] of users. Changes nothing."""
    counts = world.users.head["counts"][slots, N_RECENT].astype(np.int64)
    return world.space.fold_in(world.users.recent_item[slots], counts)


def read(world: World, slots: NDArray[np.int64], assessed: Assessed, vectors: NDArray[np.float32]) -> Reading:
    """Order the interests and gather all numbers. Changes nothing."""
    users, heads = world.users, world.users.head[slots]
    numbers = _numbers(world, slots, assessed)
    lift = numbers.share / numbers.prior
    items, counts = users.recent_item[slots], heads["counts"]
    return Reading(
        world,
        slots,
        assessed,
        vectors,
        heads[HEAD_FIELDS].tolist(),
        heads["by_hour"].tolist(),
        _ragged(
            numbers.place >= 0,
            numbers.tag,
            np.round(numbers.weight, 6),
            np.round(numbers.share, 6),
            np.round(numbers.recent, 6),
            np.round(lift, 3),
            np.round(numbers.events, 4),
            numbers.last_ts,
            *(numbers.because[:, :, b] for b in range(BECAUSE)),
        ),
        _ragged(_first(counts[:, N_RECENT], items), items, world.space.slots(items), users.recent_ts[slots]),
        _ragged(
            _first(counts[:, N_SPEND], users.spend_micros), users.spend_currency[slots], users.spend_micros[slots] / 1e6
        ),
        _moved(users, slots, assessed),
    )


def _ragged(used: NDArray[np.bool_], *columns: NDArray[Any]) -> Ragged:
    """The used entries of columns [n, k]. Only these become Python objects: of newcomers, most places are empty."""
    at = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
    return Ragged(tuple(column[used].tolist() for column in columns), at.tolist())


def _moved(users: Users, slots: NDArray[np.int64], assessed: Assessed) -> Ragged:
    """Gathers just the tags that moved: they are few among all that are tracked."""
    rows, places = np.nonzero(assessed.status != SAME)
    before = np.maximum(users.tag_published[slots[rows], places], 0).astype(np.float64)
    columns = (
        assessed.status[rows, places],
        users.tag[slots[rows], places],
        np.round(before, 4),
        np.round(assessed.share[rows, places], 4),
    )
    at = np.searchsorted(rows, np.arange(len(slots) + 1))
    return Ragged(tuple(column.tolist() for column in columns), at.tolist())


def _first(counts: NDArray[Any], column: NDArray[Any]) -> NDArray[np.bool_]:
    """Which places of a list column are used."""
    used: NDArray[np.bool_] = np.arange(column.shape[1]) < counts[:, None]
    return used


def _numbers(world: World, slots: NDArray[np.int64], assessed: Assessed) -> Numbers:
    n, scales, catalogue = len(slots), world.policy.scales, world.space.catalogue
    k, items = scales.interests, catalogue.table
    out = Numbers(
        place=np.full((n, k), -1),
        tag=np.zeros((n, k), np.uint64),
        last_ts=np.zeros((n, k), np.int64),
        share=np.zeros((n, k)),
        prior=np.ones((n, k)),  # not zeros: shares are divided by it, in empty places too
        weight=np.zeros((n, k)),
        recent=np.zeros((n, k)),
        events=np.zeros((n, k)),
        because=np.full((n, k, BECAUSE), -1),
    )
    lives = (scales.half_life_ms, scales.recent_half_life_ms, scales.smoothing)
    _read(world.users, slots, assessed, lives, items.keys, items.values, catalogue.tags, catalogue.n_tags, out)
    return out


def profile(reading: Reading, row: int, user_id: str, changed: Sequence[Change], cause: str) -> Profile:
    """The profile of the user in `row`."""
    version, as_of, published_at, clicks, purchases, first_seen = reading.heads[row]
    vector, recent = reading.vectors[row], _recent_items(reading, row)
    return Profile(
        user_id=user_id,
        version=version,
        as_of=as_of,
        published_at=published_at,
        interests=_interests(reading, row, recent),
        vector=base64.b64encode(vector.astype("<f4").tobytes()).decode(),
        vector_dim=len(vector),
        model=reading.world.space.model,
        activity=Activity(
            clicks=clicks,
            purchases=purchases,
            spend={currency_name(code): round(amount, 6) for code, amount in reading.spend.row(row)},
            first_seen=first_seen,
            last_seen=as_of,
            by_hour=tuple(reading.hours[row]),
        ),
        recent_items=tuple(item for item in recent if item is not None),
        changed=tuple(changed),
        cause=cause,
    )


def changes(reading: Reading, row: int) -> list[Change]:
    """What happened to the interests since the last profile, strongest first."""
    name_of, found = reading.world.names.tag, []
    if lost := int(reading.world.users.head["lost_tag"][reading.slots[row]]):
        found.append(Change("interest_dropped", tag=name_of(lost), after=0.0))
    for status, tag, before, share in reading.moved.row(row):
        found.append(Change(_WHAT[status], name_of(tag), before, share))
    return sorted(found, key=lambda change: -abs((change.after or 0) - (change.before or 0)))


_WHAT: Final[dict[int, What]] = {ADDED: "interest_added", DROPPED: "interest_dropped", SHIFTED: "interest_shifted"}


def _interests(reading: Reading, row: int, recent: list[ItemEvent | None]) -> tuple[Interest, ...]:
    name_of = reading.world.names.tag
    return tuple(
        Interest(name, weight, share, lately, lift, events, last_ts, _because(places, recent))
        for tag, weight, share, lately, lift, events, last_ts, *places in reading.interests.row(row)
        if (name := name_of(tag)) is not None
    )


def _because(places: list[int], recent: list[ItemEvent | None]) -> tuple[ItemEvent, ...]:
    return tuple(event for k in places if k >= 0 and (event := recent[k]) is not None)


def _recent_items(reading: Reading, row: int) -> list[ItemEvent | None]:
    ids, name_of = reading.world.space.catalogue.ids, reading.world.names.item
    return [
        None if name is None else ItemEvent(name, ts >> 8, KIND_NAMES[ts & 255])
        for key, slot, ts in reading.items.row(row)
        for name in (ids[slot] if slot >= 0 else name_of(key),)
    ]


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
        for r in range(min(n, out.place.shape[1])):
            j = order[r]
            fade = 2.0 ** (-(now - users.tag_ts[s, j]) / half_life)
            out.place[i, r] = j
            out.tag[i, r] = users.tag[s, j]
            out.last_ts[i, r] = users.tag_ts[s, j]
            out.share[i, r] = assessed.share[i, j]
            out.prior[i, r] = assessed.prior[i, j]
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
            for r in range(out.place.shape[1]):
                if out.place[i, r] < 0:
                    break
                if out.tag[i, r] == item_tags[item, t]:
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
