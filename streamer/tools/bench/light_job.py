"""The light job that the peers do, in Python: one SGD step of a user's vector, 16 decayed tags, a row of bytes.

    error = 1 - user · item        user += rate · (error · item - regularisation · user)
    weight of a tag = Σ 2^(-age / half-life) over the user's events with it; the weakest of 16 makes room for a new tag

Row, little-endian, 400 bytes: f32[64] vector | u32[16] tags | f32[16] their weights at `ts` | i64 ts | i64 events.
LightJob.java keeps the same row. The kernel is compiled: the frameworks are compared, not Python's arithmetic.
"""

import base64
import zlib
from typing import Any, Final

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

import streamer.model  # noqa: F401 - says where compiled kernels are kept

DIM: Final = 64
TAGS: Final = 16
RATE, REGULARISATION = 0.05, 0.01
HALF_LIFE_MS: Final = 30 * 86_400_000
COMMIT_S: Final = 1.0  # of all peers: as often as profiles go out
PROFILE_S: Final = 1.0  # a user's profile goes out at most so often

ROW = np.dtype(
    [("vector", "<f4", (DIM,)), ("tag", "<u4", (TAGS,)), ("weight", "<f4", (TAGS,)), ("ts", "<i8"), ("events", "<i8")]
)
BLANK: Final = bytes(ROW.itemsize)
FIRST_EVENT: Final = "first event"  # what each peer prints when it gets it


class Event(msgspec.Struct):
    """What the job needs of an event."""

    user_id: str
    item_id: str
    ts: int


decode = msgspec.json.Decoder(Event).decode
_items: dict[str, tuple[NDArray[np.float32], int]] = {}


def item_facts(item_id: str) -> tuple[NDArray[np.float32], int]:
    """A fixed vector of length 1 and a tag, one of a hundred, of each item."""
    facts = _items.get(item_id)
    if facts is None:
        rng = np.random.default_rng(zlib.crc32(item_id.encode()))
        vector = rng.standard_normal(DIM).astype(np.float32)
        vector /= np.linalg.norm(vector)
        facts = _items[item_id] = vector, zlib.crc32(item_id.rpartition("-")[2][-2:].encode())
    return facts


def update(raw: bytes, event: Event) -> bytes:
    """The row after an event."""
    row = bytearray(raw)
    vector, tag = item_facts(event.item_id)
    _step(np.frombuffer(row, np.float32), vector, np.uint32(tag), event.ts)
    return bytes(row)


def profile(user_id: str, raw: bytes) -> bytes:
    """What goes out for a user."""
    row: Any = np.frombuffer(raw, ROW)[0]
    tags = {str(tag): weight for tag, weight in zip(row["tag"].tolist(), row["weight"].tolist(), strict=True) if tag}
    vector = base64.b64encode(row["vector"].tobytes()).decode()
    return msgspec.json.encode({"user_id": user_id, "events": int(row["events"]), "tags": tags, "vector": vector})


def events_of(raw: bytes) -> int:
    """How many events a row counts."""
    return int(np.frombuffer(raw, ROW)[0]["events"])


def warm_up() -> None:
    """Compile the kernel before the first event."""
    update(BLANK, Event("", "item-0", 1))


@njit(cache=True)
def _step(row, item, tag, ts):  # type: ignore[no-untyped-def]
    user, tags, weights = row[:DIM], row[DIM : DIM + TAGS].view(np.uint32), row[DIM + TAGS : DIM + 2 * TAGS]
    counts = row[DIM + 2 * TAGS :].view(np.int64)
    error = np.float32(1)
    for i in range(DIM):
        error -= user[i] * item[i]
    for i in range(DIM):
        user[i] += np.float32(RATE) * (error * item[i] - np.float32(REGULARISATION) * user[i])
    fade = np.float32(2.0 ** (-max(ts - counts[0], 0) / HALF_LIFE_MS))
    place, weakest = -1, 0
    for i in range(TAGS):
        weights[i] *= fade
        if tags[i] == tag:
            place = i
        if weights[i] < weights[weakest]:
            weakest = i
    if place < 0:
        place = weakest
        tags[place], weights[place] = tag, np.float32(0)
    weights[place] += np.float32(1)
    counts[0], counts[1] = max(counts[0], ts), counts[1] + 1
