"""Cut: what a checkpoint writes for one partition: which profiles go out, and the rows of all users that changed.

Everything happens between two batches: rows, profiles and positions of one cut belong together. A large one is made in
pieces, so that whoever shares the processor gets turns.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.pipeline import gate, publish
from streamer.pipeline.layout import N_VECTOR, Users
from streamer.pipeline.moves import ACTIVE, BEAT
from streamer.pipeline.profile_json import Telling
from streamer.pipeline.publish import World
from streamer.pipeline.rows import pack
from streamer.profile import What

PIECE: Final = 250  # users: 3 ms of work
SHORT_PIECE: Final = 40  # 1 ms: a user costs more then
# Why a user is looked at: values of `Candidates.why`.
CHANGED, DUE, HEARTBEAT = 0, 1, 2


class Candidates(NamedTuple):
    """The users that a cut looks at."""

    slots: NDArray[np.int64]  # distinct
    why: NDArray[np.int64]
    keys: Sequence[bytes]  # their user ids in UTF-8


class Publication(msgspec.Struct, frozen=True, gc=False):
    """A profile on its way out. `first_change` labels it in metrics."""

    key: bytes
    version: int
    value: bytes
    first_change: What
    since_ms: int  # when Kafka got the first event that a cut has not looked at before; 0: it is the end of a wait


class Cut(NamedTuple):
    """Rows of all candidates, in their order; the profiles among them; who is held back from now on."""

    rows: list[bytes]
    publications: list[Publication]
    held: NDArray[np.int64]  # slots whose change is newly held back


def slots_to_look_at(
    changed: NDArray[np.int64], due: NDArray[np.int64], silent: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All slots that a cut looks at, each once, and why. What changed once more and is due is due all the same."""
    if not len(due) + len(silent):
        return changed, np.full(len(changed), CHANGED)
    silent = np.setdiff1d(silent, np.concatenate([changed, due]))
    slots = np.concatenate([changed, np.setdiff1d(due, changed), silent])
    return slots, np.select([np.isin(slots, due), np.isin(slots, silent)], [DUE, HEARTBEAT], CHANGED)


def pieces(candidates: Candidates, size: int) -> Iterator[Candidates]:
    """Parts for `cut` of so many users, one at least."""
    for first in range(0, max(len(candidates.keys), 1), size):
        some = slice(first, first + size)
        yield Candidates(candidates.slots[some], candidates.why[some], candidates.keys[some])


def join(cuts: Sequence[Cut]) -> Cut:
    """The cut that its pieces make."""
    rows, publications, held = zip(*cuts, strict=True)
    return Cut([*chain.from_iterable(rows)], [*chain.from_iterable(publications)], np.concatenate(held))


def cut(world: World, candidates: Candidates, causes: list[bytes], now_ms: int, due_ms: int) -> Cut:
    """Assess, publish what passes the gate, hold the rest back until `due_ms`, pack all rows.

    `causes` are the event ids (UTF-8) behind unpublished changes, by slot; those of published users are emptied.
    """
    slots, why, _ = candidates
    world.space.take_in_new_tags()
    assessed = publish.assess(world, slots)
    vectors, cosine = _vectors(world, slots, (assessed.reasons != 0) | (why != CHANGED))
    moved = (cosine < world.policy.thresholds.cosine) & (world.users.head["version"][slots] > 0)
    assessed.reasons[moved] |= gate.VECTOR
    out = np.flatnonzero((assessed.reasons != 0) | (why != CHANGED))
    _stamp(world.users, slots[out], now_ms)
    publications = _publish(world, candidates, out, gate.rows_of(assessed, out), vectors[out], cosine[out], causes)
    held = _hold(world.users, np.delete(slots, out), due_ms)
    world.users.touched_at[slots] = 0
    return Cut(pack(world.users, slots, [causes[slot] for slot in slots.tolist()]), publications, held)


def _vectors(
    world: World, slots: NDArray[np.int64], asked: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Vectors of those `asked` for and of those whose is old; and each one's cosine with the published vector.

    Where none was computed, the vector is zeros and the cosine 1.
    """
    vectors = np.zeros((len(slots), world.users.vector.shape[1]), np.float32)
    cosine = np.ones(len(slots))
    wanted = np.flatnonzero(asked | gate.vector_is_old(world.users, slots))
    if len(wanted):
        vectors[wanted] = publish.fold_in(world, slots[wanted])
        cosine[wanted] = gate.cosines(world.users, slots[wanted], vectors[wanted])
        world.users.head["since_vector"][slots[wanted]] = 0
    return vectors, cosine


def _stamp(users: Users, slots: NDArray[np.int64], now_ms: int) -> None:
    users.head["version"][slots] += 1
    users.head["published_at"][slots] = now_ms
    users.head["held_until"][slots] = 0


def _publish(
    world: World,
    candidates: Candidates,
    out: NDArray[np.int64],
    assessed: gate.Assessed,
    vectors: NDArray[np.float32],
    cosine: NDArray[np.float64],
    causes: list[bytes],
) -> list[Publication]:
    """The profiles of the candidates at `out`."""
    users, slots, why = world.users, candidates.slots[out], candidates.why[out]
    telling = Telling(
        [candidates.keys[i] for i in out.tolist()],
        [causes[slot] for slot in slots.tolist()],
        _tell(assessed.reasons, why),
        cosine,
    )
    written = publish.write(world, slots, assessed, vectors, telling)
    for slot in slots.tolist():
        causes[slot] = b""
    _mark_published(users, slots, assessed, vectors)
    versions = users.head["version"][slots].tolist()
    since_ms = np.where(why == CHANGED, users.touched_at[slots], 0).tolist()
    return list(map(Publication, telling.keys, versions, written.values, written.first, since_ms))


def _tell(reasons: NDArray[np.uint8], why: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Why each profile goes out; never nothing. A heartbeat says first that it is one."""
    tell = reasons | np.where(why == HEARTBEAT, BEAT, 0).astype(np.uint8)
    return np.where(tell, tell, ACTIVE).astype(np.uint8)


def _mark_published(
    users: Users, slots: NDArray[np.int64], assessed: gate.Assessed, vectors: NDArray[np.float32]
) -> None:
    """What goes out is what later changes are held against."""
    gate.mark_published(users, slots, assessed)
    users.head["lost_tag"][slots] = 0
    users.vector[slots] = gate.quantise(vectors)
    users.head["counts"][slots, N_VECTOR] = users.vector.shape[1]


def _hold(users: Users, slots: NDArray[np.int64], due_ms: int) -> NDArray[np.int64]:
    """Changes that did not pass the gate wait from here on; those that wait already keep their time."""
    fresh: NDArray[np.int64] = slots[users.head["held_until"][slots] == 0]
    users.head["held_until"][fresh] = due_ms
    return fresh
