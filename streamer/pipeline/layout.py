"""The users in memory: one slot a user. What every user has stands in columns; the lists stand in blocks of an arena.

A block holds a user's lists one behind the other and comes in a few sizes (`LADDER`): a newcomer takes 0.7 KB, a user
with everything 13.6 KB. When a list is full, the user moves to a block of the next size. So memory goes by what people
do, and what one event touches lies close together.

Item ids, tags and event ids are kept as 64-bit hashes (xxh3): the strings of items and tags stand once in the
dictionary rows of the partition (see `pipeline.names`). How users are stored: `pipeline.rows`.
"""

import mmap
import sys
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.model.compiled import leaf
from streamer.model.interests import TAG

# Tags tracked a user: 20 are shown, the rest is the waiting room of new interests, and tells how likely what was seen
# long ago is to come again. A tag that had to leave starts anew when it comes back. NLL of the next event's tags and
# HR@5 over Online Retail, 103 tags a user on average: 64 tags 5.804, 96 5.768 / .144, 128 5.748, 192 5.730 / .145,
# 256 5.722, all 5.712.
TAGS: Final = 256
CURRENCIES: Final = 6  # currencies summed a user; purchases in further ones count, their amounts do not
PREDECESSORS: Final = 12  # earlier items that a signal names: beyond them 2^(-age/3) is under 7 %

# Lists that have a count: the columns of `counts`; and the vector, which is whole or not there.
N_TAGS, N_RECENT, N_SEEN, N_SPEND, N_VECTOR = range(5)
LISTS: Final = 4

HEAD: Final = np.dtype(
    [
        ("version", "<u4"),  # times published
        ("clicks", "<u4"),
        ("purchases", "<u4"),
        ("since_vector", "<u4"),  # events since the published vector
        ("as_of", "<i8"),  # newest ts applied, ms
        ("first_seen", "<i8"),
        ("published_at", "<i8"),
        ("held_until", "<i8"),  # when a change held back is due, ms; 0: nothing is held
        ("lost_tag", "<u8"),  # a published interest that left the tracked tags since; 0: none
        ("by_hour", "<u4", (24,)),
        ("counts", "<u2", (5,)),
        ("seen_next", "<u2"),  # where the ring of event ids goes on
        ("clock", "<u4"),  # events that came in time: what `at` of a tag counts
        ("hour", "<u4"),  # the newest hour with an event, since 1970
        ("in_hour", "<u4"),  # events since it began
    ]
)
RECENT: Final = np.dtype([("item", "<u8"), ("time", "<i8")])  # newest first; `time` is ts << 8 | kind
SPEND: Final = np.dtype(
    [("micros", "<f8"), ("currency", "<u4"), ("reserved", "<u4")]
)  # whole millionths; three letters
SEEN: Final = np.dtype("<u8")  # ring of event ids
ENTRY_BYTES: Final = (TAG.itemsize, RECENT.itemsize, SEEN.itemsize, SPEND.itemsize)
UNIT: Final = TAG.itemsize  # blocks begin at whole tags
ALIGNED: Final = RECENT.itemsize  # and lists at whole entries

# Room for tags; and for recent items, event ids and currencies, in parts of what is the most of them. A user with 12
# events and 12 tags fits the second size, one with 40 events and 30 tags the third.
LADDER: Final = (
    (8, 0.2, 0.25, 0.16),
    (16, 0.4, 0.5, 0.33),
    (32, 1, 1, 0.66),
    (48, 1, 1, 1),
    (64, 1, 1, 1),
    (96, 1, 1, 1),
    (128, 1, 1, 1),
    (192, 1, 1, 1),
    (TAGS, 1, 1, 1),
)
LEVELS: Final = len(LADDER) + 1  # level 0: no block yet


class Shape(NamedTuple):
    """Widths that settings decide."""

    recent: int
    seen: int
    vector: int


class Users(NamedTuple):
    """Columns [capacity], and the arena: the same bytes as tags, recent items, sums of money, event ids."""

    head: NDArray[np.void]  # HEAD
    vector: NDArray[np.int8]  # [capacity, vector] published vector, 127 = its largest number
    touched_at: NDArray[np.int64]  # Kafka timestamp of the first event since the last cut; 0: there was none
    used: NDArray[np.int64]  # batch number of the latest use, for the cache
    level: NDArray[np.uint8]  # size of the user's block
    block: NDArray[np.int64]  # where it begins, in UNITs
    tags: NDArray[np.void]  # TAG
    recents: NDArray[np.void]  # RECENT
    spends: NDArray[np.void]  # SPEND
    seens: NDArray[np.uint64]
    room: NDArray[np.int64]  # [LEVELS, LISTS] entries that fit
    start: NDArray[np.int64]  # [LEVELS, LISTS] bytes from the block's beginning
    size: NDArray[np.int64]  # [LEVELS] UNITs
    free: NDArray[np.int64]  # [LEVELS, capacity] blocks given back, a stack a level
    free_count: NDArray[np.int64]  # [LEVELS]
    end: NDArray[np.int64]  # [1] UNITs of the arena ever taken

    @property
    def most(self) -> NDArray[np.int64]:
        """The most entries of each list."""
        most: NDArray[np.int64] = self.room[-1]
        return most


def allocate(capacity: int, shape: Shape) -> Users:
    """Empty columns. The arena is address space: memory is taken only when a block is used."""
    most = (TAGS, shape.recent, shape.seen, CURRENCIES)
    room = np.zeros((LEVELS, LISTS), np.int64)
    for level, parts in enumerate(LADDER, start=1):
        room[level] = (parts[0], *(np.ceil(part * n) for part, n in zip(parts[1:], most[1:], strict=True)))
    room[-1] = most
    sizes = -(-room * np.array(ENTRY_BYTES) // ALIGNED) * ALIGNED
    start = np.cumsum(sizes, axis=1) - sizes
    size = -(-sizes.sum(axis=1) // UNIT)
    arena = _arena(capacity * int(size.sum()) * UNIT)
    return Users(
        head=np.zeros(capacity, HEAD),
        vector=np.zeros((capacity, shape.vector), np.int8),
        touched_at=np.zeros(capacity, np.int64),
        used=np.zeros(capacity, np.int64),
        level=np.zeros(capacity, np.uint8),
        block=np.zeros(capacity, np.int64),
        tags=arena.view(TAG),
        recents=arena.view(RECENT),
        spends=arena.view(SPEND),
        seens=arena.view(SEEN),
        room=room,
        start=start,
        size=size,
        free=np.zeros((LEVELS, capacity), np.int64),
        free_count=np.zeros(LEVELS, np.int64),
        end=np.zeros(1, np.int64),
    )


def _arena(size: int) -> NDArray[np.uint8]:
    """Zeroed bytes that count for nothing until they are used; in huge pages where the system has them."""
    # Every user may take a block of every size, one after the other. Python names the flag from 3.12 on.
    reserve = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | reserve)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def clear(users: Users, slots: NDArray[np.int64]) -> None:
    """Make slots blank; their blocks are free for others."""
    users.head[slots] = np.zeros((), HEAD)
    users.touched_at[slots] = 0
    give_back(users, slots)


def are_known(users: Users, slots: Any) -> Any:
    """Whether an event of the users in slots, one or an array of them, ever counted."""
    return users.head["counts"][slots, N_SEEN] > 0


def tags_of(users: Users, slot: int) -> NDArray[np.void]:
    """The tags of one user."""
    first = int(users.block[slot])
    return users.tags[first : first + int(users.head["counts"][slot, N_TAGS])]


def recent_of(users: Users, slot: int) -> NDArray[np.void]:
    """The recent items of one user."""
    first = int(users.block[slot] * UNIT + users.start[users.level[slot], N_RECENT]) // RECENT.itemsize
    return users.recents[first : first + int(users.head["counts"][slot, N_RECENT])]


def recent_items(users: Users, slots: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The recent items (hashes) of users end to end, newest first, and where each user's begin, with the end."""
    at, items = np.zeros(len(slots) + 1, np.int64), np.empty(len(slots) * int(users.most[N_RECENT]), np.uint64)
    copy_recent_items(users, slots, at, items)
    return items[: at[-1]], at


@leaf
def copy_recent_items(users, slots, at, out):  # type: ignore[no-untyped-def]
    """`recent_items` into arrays with room for them; the first of `at` is 0."""
    for i in range(len(slots)):
        at[i + 1] = at[i] + users.head[slots[i]].counts[N_RECENT]
        first = place(users, slots[i], N_RECENT) - at[i]
        for k in range(at[i], at[i + 1]):
            out[k] = users.recents[first + k].item


@leaf
def place(users, s, which):  # type: ignore[no-untyped-def]
    """Where a list of a user begins, in entries of its kind."""
    start = users.block[s] * UNIT + users.start[users.level[s], which]
    if which == N_SEEN:
        return start // 8
    return start // UNIT if which == N_TAGS else start // 16


@leaf
def ensure_room(users, s, tags, recent, seen, spend):  # type: ignore[no-untyped-def]
    """See that the lists of a user can hold so many entries, or the most that there are; may move the block."""
    level = users.level[s]
    room = users.room[level]
    if room[N_TAGS] >= tags and room[N_RECENT] >= recent and room[N_SPEND] >= spend and room[N_SEEN] >= seen:
        return
    wanted = np.int64(level)
    while wanted < len(users.room) - 1:
        wanted += 1
        room = users.room[wanted]
        if room[N_TAGS] >= tags and room[N_RECENT] >= recent and room[N_SPEND] >= spend and room[N_SEEN] >= seen:
            break
    if wanted != level:
        _move(users, s, wanted)


@leaf
def _move(users, s, level):  # type: ignore[no-untyped-def]
    old, old_level, counts = users.block[s], np.int64(users.level[s]), users.head[s].counts
    new = take_block(users, level)
    for which in range(LISTS):
        words = counts[which] * ENTRY_BYTES[which] // 8
        source = (old * UNIT + users.start[old_level, which]) // 8
        target = (new * UNIT + users.start[level, which]) // 8
        for k in range(words):
            users.seens[target + k] = users.seens[source + k]
    _free(users, old_level, old)
    users.block[s] = new
    users.level[s] = level


@leaf
def take_block(users, level):  # type: ignore[no-untyped-def]
    """A block of a level; what is in it is anybody's."""
    n = users.free_count[level]
    if n:
        users.free_count[level] = n - 1
        return users.free[level, n - 1]
    users.end[0] += users.size[level]
    return users.end[0] - users.size[level]


@leaf
def _free(users, level, block):  # type: ignore[no-untyped-def]
    if level:
        users.free[level, users.free_count[level]] = block
        users.free_count[level] += 1


@leaf
def give_back(users, slots):  # type: ignore[no-untyped-def]
    """The blocks of slots are free for others."""
    for s in slots:
        _free(users, np.int64(users.level[s]), users.block[s])
        users.level[s] = 0
