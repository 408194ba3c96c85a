"""Moves: what a profile says of why it goes out. One compiled pass over the verdicts of the gate.

First that it is a heartbeat or a first profile, of which that says it all; then interests by the size of their move,
the largest first; then a tag that left the tracked ones, the vector, and that there were but further events.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.model.compiled import leaf
from streamer.pipeline import gate
from streamer.pipeline.gate import FIRST, INTERESTS, SAME, VECTOR, Assessed
from streamer.pipeline.layout import Users
from streamer.pipeline.profile_kernel import ACTIVITY, ADDED, DROPPED, FIRST_PROFILE, HEARTBEAT, MOVED, SHIFTED

BEAT, ACTIVE = 8, 16  # reasons beside the gate's: a heartbeat; nothing but further events
_BESIDE: Final = 5  # entries of a user that are of no interest
_NO_TAG, _NOT_SAID = np.uint64(0), np.nan
_WHAT_OF: Final = np.zeros(4, np.int64)  # by the gate's status
_WHAT_OF[[gate.ADDED, gate.DROPPED, gate.SHIFTED]] = ADDED, DROPPED, SHIFTED


class Moves(NamedTuple):
    """Entries of `changed`, one user's after the other's: row i has `at[i] : at[i + 1]`. NaN: not said."""

    what: NDArray[np.int64]  # of `profile_kernel`
    tag: NDArray[np.uint64]  # 0: of no tag
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    at: NDArray[np.int64]


def moves(
    users: Users, slots: NDArray[np.int64], assessed: Assessed, reasons: NDArray[np.uint8], cosine: NDArray[np.float64]
) -> Moves:
    """For `reasons` u8[n], the gate's bits and those above; `cosine` f64[n] is of the vector with the published one."""
    most = int(assessed.at[-1]) + _BESIDE * len(slots)
    what, tag, at = np.empty(most, np.int64), np.empty(most, np.uint64), np.zeros(len(slots) + 1, np.int64)
    before, after = np.empty((2, most))
    n = _tell(users, slots, assessed, reasons, cosine, Moves(what, tag, before, after, at))
    return Moves(what[:n], tag[:n], before[:n], after[:n], at)


@leaf
def _tell(users, slots, assessed, reasons, cosine, out):  # type: ignore[no-untyped-def]
    n = 0
    for i in range(len(slots)):
        why, lost = reasons[i], users.head[slots[i]].lost_tag
        if why & BEAT:
            n = _put(out, n, HEARTBEAT, _NO_TAG, _NOT_SAID, _NOT_SAID)
        if why & FIRST:
            n = _put(out, n, FIRST_PROFILE, _NO_TAG, _NOT_SAID, _NOT_SAID)
        elif why & INTERESTS:
            n = _put_interests(users, slots[i], assessed, i, out, n)
            if lost != 0:
                n = _put(out, n, DROPPED, lost, _NOT_SAID, 0.0)
        if why & VECTOR and not why & FIRST:
            n = _put(out, n, MOVED, _NO_TAG, 1.0, cosine[i])
        if why & ACTIVE:
            n = _put(out, n, ACTIVITY, _NO_TAG, _NOT_SAID, _NOT_SAID)
        out.at[i + 1] = n
    return n


@leaf
def _put(out, n, what, tag, before, after):  # type: ignore[no-untyped-def]
    out.what[n], out.tag[n], out.before[n], out.after[n] = what, tag, before, after
    return n + 1


@leaf
def _put_interests(users, s, assessed, i, out, n):  # type: ignore[no-untyped-def]
    """The tags of user `s`, the i-th, whose share moved, by the size of the move; of equals the earlier tag first."""
    own, first = n, assessed.at[i]
    for j in range(first, assessed.at[i + 1]):
        if assessed.status[j] == SAME:
            continue
        entry = users.tags[users.block[s] + j - first]
        before, after = _rounded(max(np.float64(entry.published), 0.0)), _rounded(assessed.share[j])
        k = n
        while k > own and abs(out.after[k - 1] - out.before[k - 1]) < abs(after - before):
            _put(out, k, out.what[k - 1], out.tag[k - 1], out.before[k - 1], out.after[k - 1])
            k -= 1
        _put(out, k, _WHAT_OF[assessed.status[j]], entry.tag, before, after)
        n += 1
    return n


@leaf
def _rounded(share):  # type: ignore[no-untyped-def]
    """To the four decimals that a profile says."""
    return np.rint(share * 1e4) / 1e4
