"""Read: one user's profile for whoever asks.

A cut writes hundreds of profiles at once. For a single one, most of the time would go into making room and into handing
the columns to eight kernels one after the other: here the room is kept, and one kernel calls those of the others.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.model.factors import C0, REG, ridge
from streamer.pipeline import gate
from streamer.pipeline.gate import Assessed, judge
from streamer.pipeline.hashing import lookup_all
from streamer.pipeline.json_bytes import literal
from streamer.pipeline.layout import TAGS, Users, copy_recent_items
from streamer.pipeline.profile_json import Book, Page, bound_of
from streamer.pipeline.profile_kernel import write_profiles
from streamer.pipeline.publish import World
from streamer.pipeline.top_interests import TopInterests, blank, read_top, tagged

_NO_TEXT, _NOTHING, _NOT_SAID, _NONE_AT = literal(""), np.zeros(0, np.int64), np.zeros(0), np.zeros(2, np.int64)


class Room(NamedTuple):
    """Of one user at a time."""

    slots: NDArray[np.int64]  # [1]
    assessed: Assessed
    top: TopInterests
    order: NDArray[np.int64]  # [interests]
    tag_name: NDArray[np.int64]  # [1, interests]
    recent: NDArray[np.uint64]  # [recent items] hashes
    recent_at: NDArray[np.int64]  # [2]
    recent_name: NDArray[np.int64]  # [recent items]
    vector: NDArray[np.float32]  # [1, dim]
    matrix: NDArray[np.float64]  # [dim, dim]
    solution: NDArray[np.float64]  # [dim]


class Reader:
    """Profiles of users of any partition of a worker, one after the other: not for two threads at once."""

    def __init__(self, recent_items: int, interests: int, dim: int) -> None:
        self._room = Room(
            slots=np.zeros(1, np.int64),
            assessed=gate.room(1, TAGS),
            top=blank(1, interests),
            order=np.zeros(interests, np.int64),
            tag_name=np.zeros((1, interests), np.int64),
            recent=np.zeros(recent_items, np.uint64),
            recent_at=np.zeros(2, np.int64),
            recent_name=np.zeros(recent_items, np.int64),
            vector=np.zeros((1, dim), np.float32),
            matrix=np.zeros((dim, dim)),
            solution=np.zeros(dim),
        )
        self._places, self._ends = np.arange(recent_items), np.zeros(2, np.int64)
        self._out = np.zeros(0, np.uint8)

    def read(self, world: World, slot: int, user_id: str) -> bytes:
        """The user's profile as JSON, as it is now, with nothing in `changed`. Changes nothing."""
        room, policy, space = self._room, world.policy, world.space
        items, tags = world.item_book(), world.tag_book()
        room.slots[0] = slot
        missing = _look(
            world.users,
            world.mind,
            policy.thresholds,
            policy.scales.half_life_ms,
            tagged(space.catalogue),
            space.folding,
            space.catalogue.tag_table.keys,
            space.catalogue.tag_table.values,
            room,
        )
        if missing:
            n = room.recent_at[1]
            items.find_beside(room.recent[:n], room.recent_name[:n])
            tags.find_beside(room.top.tag[0], room.tag_name[0])
        return self._write(world.users, user_id.encode(), space.model, items, tags)

    def _write(self, users: Users, key: bytes, model: str, items: Book, tags: Book) -> bytes:
        room, ends = self._room, self._ends
        page = Page(
            keys=np.frombuffer(key, np.uint8),
            key_at=np.array([0, len(key)]),
            causes=_NO_TEXT,
            cause_at=_NONE_AT,
            tag_name=room.tag_name,
            numbers=room.top.numbers,
            last_ts=room.top.last_ts,
            because=room.top.because,
            recent_name=room.recent_name,
            recent_at=room.recent_at,
            places=self._places,
            vectors=room.vector.view(np.uint8),
            model=literal(model),
            what=_NOTHING,
            what_tag=_NOTHING,
            before=_NOT_SAID,
            after=_NOT_SAID,
            move_at=_NONE_AT,
        )
        bound = bound_of(page, users, len(key) + len(page.model), items.longest, tags.longest)
        if bound > len(self._out):
            self._out = np.empty(bound, np.uint8)
        write_profiles(0, users, room.slots, page, items.strings, tags.strings, self._out, bound, ends)
        return self._out[: ends[1]].tobytes()


@njit(cache=True, error_model="numpy")
def _look(users, mind, thresholds, half_life_ms, items, folding, tag_keys, tag_values, room):  # type: ignore[no-untyped-def]
    """All that a profile says of the user in the room; returns how many names the catalogue does not have."""
    slots, top, vector = room.slots, room.top, room.vector[0]
    room.assessed.reasons[:] = 0
    judge(users, slots, mind, thresholds, room.assessed)
    top.tag[:], top.last_ts[:], top.numbers[:], top.because[:] = 0, 0, 0, -1
    read_top(users, slots, room.assessed, items, half_life_ms, room.order, top)
    copy_recent_items(users, slots, room.recent_at, room.recent)
    n = room.recent_at[1]
    missing = lookup_all(items.keys, items.values, room.recent[:n], room.recent_name)
    ridge(folding.vectors, room.recent_name, n, folding.weights, folding.gram, C0, REG, room.matrix, room.solution)
    for k in range(len(vector)):
        vector[k] = room.solution[k]
    return missing + lookup_all(tag_keys, tag_values, top.tag[0], room.tag_name[0])
