"""Buckets of users by how many events they had: 1, 2-3, 4-7, … What is learned of one may not hold for another."""

from typing import Final

from streamer.model.compiled import leaf

BUCKETS: Final = 12


@leaf
def bucket(events):  # type: ignore[no-untyped-def]
    """The bucket of a user with so many events: floor(log2), and the last one for all longer histories.

    >>> [bucket(events) for events in (0, 1, 2, 3, 4, 10**9)]
    [0, 0, 1, 1, 2, 11]
    """
    b = 0
    while events > 1 and b < BUCKETS - 1:
        events //= 2
        b += 1
    return b
