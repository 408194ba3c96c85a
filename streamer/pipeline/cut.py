"""Cut: what a checkpoint has to write for one partition. Decides which profiles go out, marks them as published, packs the rows.

Everything happens between two batches and at once: rows, profiles and positions of one cut belong together.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.pipeline import gate, publish
from streamer.pipeline.catalogue import Catalogue
from streamer.pipeline.layout import N_VECTOR, Users, pack
from streamer.profile import Change

# Why a user is looked at: values of `why`.
CHANGED, DUE, HEARTBEAT = 0, 1, 2

FoldIn = Callable[[NDArray[np.uint64], NDArray[np.int64]], NDArray[np.float32]]


class Policy(NamedTuple):
    """How profiles are read and when they are published."""

    thresholds: gate.Thresholds
    scales: publish.Scales
    vector_cosine: float


class Publication(NamedTuple):
    """A profile on its way out. `first_change` labels it in metrics."""

    slot: int
    version: int
    as_of: int
    value: bytes
    first_change: str
    at_once: bool  # it was not held back before


class Cut(NamedTuple):
    """Rows of all slots that were given, in their order; the profiles among them; who is held back until when."""

    rows: list[bytes]
    publications: list[Publication]
    held: NDArray[np.int64]  # slots whose change is newly held back


def cut(
    users: Users,
    slots: NDArray[np.int64],
    why: NDArray[np.int64],
    keys: Sequence[bytes],
    causes: list[str],
    catalogue: Catalogue,
    names: publish.Names,
    fold_in: FoldIn,
    policy: Policy,
    now_ms: int,
    due_ms: int,
) -> Cut:
    """Assess, publish what passes the gate, hold the rest back until `due_ms`, pack all rows.

    `slots` are distinct; `keys` their user ids in UTF-8; `causes` is the cache's list by slot, emptied for what is published.
    """
    assessed = gate.assess(users, slots, catalogue, policy.thresholds)
    vectors, cosine = _vectors(users, slots, assessed, why, fold_in)
    moved = (cosine < policy.vector_cosine) & (users.head["version"][slots] > 0)
    assessed.reasons[moved] |= gate.VECTOR
    out = np.flatnonzero((assessed.reasons != 0) | (why != CHANGED))
    publications = _publish(
        users, slots, out, why, keys, causes, catalogue, names, assessed, vectors, cosine, policy, now_ms
    )
    held = _hold(users, slots, out, why, due_ms)
    return Cut(pack(users, slots, [causes[s].encode() for s in slots.tolist()]), publications, held)


def _vectors(
    users: Users, slots: NDArray[np.int64], assessed: gate.Assessed, why: NDArray[np.int64], fold_in: FoldIn
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Vectors of those who may need them, zeros for the rest; cosine with the published one, 1 where it was not computed."""
    wanted = np.flatnonzero(gate.vector_is_old(users, slots) | (assessed.reasons != 0) | (why != CHANGED))
    vectors = np.zeros((len(slots), users.vector.shape[1]), np.float32)
    cosine = np.ones(len(slots))
    if len(wanted):
        some = slots[wanted]
        vectors[wanted] = fold_in(users.recent_item[some], users.head["counts"][some, 1].astype(np.int64))
        cosine[wanted] = gate.cosines(users, some, vectors[wanted])
        users.head["since_vector"][some] = 0
    return vectors, cosine


def _publish(
    users: Users,
    slots: NDArray[np.int64],
    out: NDArray[np.int64],
    why: NDArray[np.int64],
    keys: Sequence[bytes],
    causes: list[str],
    catalogue: Catalogue,
    names: publish.Names,
    assessed: gate.Assessed,
    vectors: NDArray[np.float32],
    cosine: NDArray[np.float64],
    policy: Policy,
    now_ms: int,
) -> list[Publication]:
    chosen = slots[out]
    users.head["version"][chosen] += 1
    users.head["published_at"][chosen] = now_ms
    users.head["held_until"][chosen] = 0
    part = gate.Assessed(*(column[out] for column in assessed))
    numbers = publish.read(users, chosen, part, catalogue, policy.scales)
    publications = []
    for row, (i, slot) in enumerate(zip(out.tolist(), chosen.tolist(), strict=True)):
        changed = _changes(users, slot, row, part, names, int(why[i]), float(cosine[i]))
        profile = publish.profile(
            users,
            slot,
            row,
            keys[i].decode(),
            numbers,
            part,
            vectors[i],
            names,
            changed,
            causes[slot],
            policy.scales.model,
        )
        publications.append(Publication(slot, profile.version, profile.as_of, publish.encode(profile), changed[0].what, int(why[i]) == CHANGED))
        causes[slot] = ""
    gate.mark_published(users, chosen, part.share, part.status)
    users.head["lost_tag"][chosen] = 0
    users.vector[chosen] = gate.quantise(vectors[out])
    users.head["counts"][chosen, N_VECTOR] = users.vector.shape[1]
    return publications


def _changes(
    users: Users, slot: int, row: int, assessed: gate.Assessed, names: publish.Names, why: int, cosine: float
) -> list[Change]:
    """Why the profile goes out; never empty."""
    reasons = int(assessed.reasons[row])
    found = [Change("first_profile")] if reasons & gate.FIRST else []
    found += publish.changes(users, slot, row, assessed, names)
    if reasons & gate.VECTOR:
        found.append(Change("vector_moved", before=1.0, after=round(cosine, 4)))
    if not found:
        found.append(Change("heartbeat" if why == HEARTBEAT else "activity"))
    return found


def _hold(
    users: Users, slots: NDArray[np.int64], out: NDArray[np.int64], why: NDArray[np.int64], due_ms: int
) -> NDArray[np.int64]:
    """Changes that did not pass the gate wait from here on; those that wait already keep their time."""
    waiting = np.ones(len(slots), np.bool_)
    waiting[out] = False
    fresh = slots[waiting & (why == CHANGED) & (users.head["held_until"][slots] == 0)]
    users.head["held_until"][fresh] = due_ms
    return fresh
