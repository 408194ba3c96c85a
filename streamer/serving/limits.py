"""How often one client may ask. A token bucket a client, in a bounded table; one event loop, no locks.

A bucket holds the tokens of one second and is kept as one number, the time at which it is full again (the generic cell
rate algorithm, ITU-T I.371): at 10 a second, a question moves that time by 0.1 s, and one that would move it more than
a second ahead has to wait.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

CLIENTS: Final = 10_000  # remembered; of more, those that asked longest ago begin with a full bucket
BURST_S: Final = 1.0  # what a bucket holds


class RateLimit:
    """So many questions a second of each client."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s, self._clock = 1 / per_second, clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, client: str) -> float:
        """How long the client has to wait with this question; 0: it may ask it now, and has."""
        now = self._clock()
        full_at = max(self._full_at.get(client, now), now) + self._interval_s
        wait = full_at - now - max(BURST_S, self._interval_s)
        if wait > 0:
            return wait
        self._full_at[client] = full_at
        self._full_at.move_to_end(client)
        if len(self._full_at) > CLIENTS:
            self._full_at.popitem(last=False)
        return 0.0
