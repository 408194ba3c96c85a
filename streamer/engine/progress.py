"""How far a long piece of work is, and how long the rest takes at the rate so far. Pure: callers pass the time."""

from typing import NamedTuple


class Rest(NamedTuple):
    """What is left of some work; `seconds` is None while nothing tells the rate."""

    done: int
    total: int
    per_second: float
    seconds: float | None

    @property
    def left(self) -> int:
        """How many are still to do."""
        return self.total - self.done

    def __str__(self) -> str:
        """For people.

        >>> str(Rest(done=400_000, total=1_000_000, per_second=50_000, seconds=12.2))
        '40 %, 600,000 rows left, about 12 s'
        >>> str(Rest(done=0, total=1_000_000, per_second=0, seconds=None))
        '0 %, 1,000,000 rows left'
        """
        time = "" if self.seconds is None else f", about {self.seconds:.0f} s"
        return f"{100 * self.done // max(self.total, 1)} %, {self.left:,} rows left{time}"


def rest(done: int, total: int, seconds: float) -> Rest:
    """What is left after `seconds` in which `done` of `total` were done.

    >>> rest(done=400, total=1000, seconds=2.0)
    Rest(done=400, total=1000, per_second=200.0, seconds=3.0)
    """
    per_second = done / seconds if seconds > 0 else 0.0
    return Rest(done, total, per_second, (total - done) / per_second if per_second else None)
