"""Watchdog: work that waits and does not get done ends the process, so that its supervisor starts another.

A client that waits for an answer that never comes, or a lock that nobody opens, raises nothing. Two looks find it:

    on the event loop   is there work in a unit (a partition, or the opening of all), and did its mark move?
    in a thread         does the event loop answer at all?

Time is counted in looks, not by the clock: a process that was frozen, or a machine that slept, goes on where it was. If
others took its partitions over meanwhile, fencing decides, not this.
"""

import logging
import threading
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, NamedTuple

import structlog
from mode import Service

from streamer import metrics
from streamer.engine.engine import Engine
from streamer.engine.exit import StalledError, leave
from streamer.engine.ingest import Ingest
from streamer.engine.partition import Partition

log = structlog.get_logger(__name__)

LOOK_S: Final = 1.0
# From a liveness that fails to the end of the process: probes that ask every 10 s, as Kubernetes does, see the reason.
GRACE_S: Final = 15.0
GROUP_PATIENCE_S: Final = 60.0  # a rebalance waits so long for a member that has not given its partitions up


class Work(NamedTuple):
    """What waits in a unit, in words for people; `mark` is another one after every step forward."""

    waits: str
    mark: Hashable
    patience_s: float = 0.0  # beyond the limit: for what others may rightly hold up


def work_of(engine: Engine, ingest: Ingest) -> dict[str, Work]:
    """The work of a worker: each partition by itself, or their opening as a whole. Changes nothing."""
    if engine.opening is not None:
        return {"opening": Work(engine.opening.doing, engine.opening.steps)}
    if not engine.ready:
        session_s = engine.settings.session_timeout_ms / 1000
        return {"group": Work(engine.reason, engine.epoch, max(GROUP_PATIENCE_S, session_s))}
    return {f"partition {n}": work for n, p in engine.partitions.items() if (work := _of_partition(p, ingest))}


def _of_partition(partition: Partition, ingest: Ingest) -> Work | None:
    """What a partition still has to read or to checkpoint; None where it has nothing."""
    at = partition.position.next
    ends = {topic: ingest.end_offset(topic, partition.number) for topic in at}
    lag = sum(max((ends[topic] or 0) - offset, 0) for topic, offset in at.items())
    if not lag and at == partition.saved:
        return None
    waits = (
        f"partition {partition.number} has {lag} records to read"
        if lag
        else f"partition {partition.number} waits for a checkpoint"
    )
    return Work(waits, (tuple(at.items()), tuple(partition.saved.items())))


class Watchdog(Service):
    """Looks at the work once a second.

    Args:
        limit_s: a unit with work that stands still for so long makes liveness fail.
        look: the units that have work now.
        end: ends the process; gets the reason.
    """

    logger = logging.getLogger("mode")  # a service's comings and goings: filtered with the library's own

    def __init__(
        self,
        limit_s: float,
        look: Callable[[], Mapping[str, Work]],
        end: Callable[[str], object] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._limit_s, self._look, self._end = limit_s, look, end or _leave
        self._still: dict[str, tuple[Hashable, float]] = {}  # unit: its mark, and for how many seconds it has it
        self.stalled = ""  # why liveness fails; empty while it does not
        self._unanswered_s = 0.0
        self._over = threading.Event()

    async def on_start(self) -> None:
        """Watch the loop that we run on."""
        threading.Thread(target=self._watch_loop, name="watchdog", daemon=True).start()

    async def on_stop(self) -> None:
        """End the thread."""
        self._over.set()

    @Service.task
    async def _watch(self) -> None:
        while not self.should_stop:
            await self.sleep(LOOK_S)
            self._unanswered_s = 0.0
            self.look()

    def look(self) -> None:
        """One look, a second after the last one."""
        work = self._look()
        still = {unit: self._still_for(unit, each) for unit, each in work.items()}
        self._still = {unit: (each.mark, still[unit]) for unit, each in work.items()}
        metrics.STALLED_SECONDS.set(max(still.values(), default=0.0))
        over = {unit: still[unit] - work[unit].patience_s - self._limit_s for unit in work}
        worst = max(over, key=over.__getitem__, default="")
        self._judge(
            over.get(worst, -1.0), f"{work[worst].waits}; no step forward for {still[worst]:.0f} s" if worst else ""
        )

    def _still_for(self, unit: str, work: Work) -> float:
        mark, seconds = self._still.get(unit, (None, 0.0))
        return seconds + LOOK_S if mark == work.mark and unit in self._still else 0.0

    def _judge(self, over_s: float, reason: str) -> None:
        if over_s < 0:
            if self.stalled:
                log.info("the worker moves again")
            self.stalled = ""
            return
        if not self.stalled:
            metrics.STALLS.inc()
            log.error("the worker stands still: it ends if nothing moves", reason=reason, in_s=GRACE_S)
        self.stalled = reason
        if over_s >= GRACE_S:
            self._end(reason)

    def _watch_loop(self) -> None:
        while not self._over.wait(LOOK_S):
            self._unanswered_s += LOOK_S
            if self._unanswered_s > self._limit_s:
                self._end(f"the event loop does not answer for {self._unanswered_s:.0f} s")


def _leave(reason: str) -> None:
    leave("watching for progress", StalledError(reason))
