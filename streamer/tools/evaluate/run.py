"""Prequential evaluation: before the model learns an event, it is asked how likely the event was.

Protocol (Vinagre, Jorge and Gama 2014): events in their order; an event is tested when its user had an earlier one and
takes the item for the first time (with `repeats`: always); candidates are all items that somebody took before and this
user did not; ties count half; an item that nobody took before is a miss; then the event is learned.
"""

import random
import time
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.model import mix
from streamer.model.experts import NAMES
from streamer.pipeline.assemble import Part
from streamer.pipeline.rank import Scored
from streamer.settings import Settings
from streamer.tools.evaluate.interests import InterestTest
from streamer.tools.evaluate.recovery import recovery
from streamer.tools.evaluate.references import References
from streamer.tools.evaluate.tally import UNRANKED, Tally, first, ranks
from streamer.tools.evaluate.workers import Worker, Workers
from streamer.tools.lines import Line
from streamer.tools.load import ITEMS

CHECKPOINT_EVENTS: Final = 64  # between two checkpoints: what a worker at 128 events a second has
NOTED_EVERY: Final = 8  # tests between two whose first 20 are noted, and which are ranked without each expert
NEW: Final = 10  # earlier events of a user who is not new any more
SEED: Final = 1


class Options(NamedTuple):
    """How to test."""

    shuffle_ties: bool = False
    repeats: bool = False
    limit: int | None = None


class Times(NamedTuple):
    """Seconds that parts of the work took, each time. Their medians know nothing of the first call, which compiles."""

    event: list[float]
    checkpoint: list[float]
    rank: list[float]

    def us_learn(self) -> float:
        """An event alone, with its part of a checkpoint: most of it is what a batch would share."""
        return 1e6 * (_median(self.event) + _median(self.checkpoint) / CHECKPOINT_EVENTS)

    def us_rank(self) -> float:
        """The evidence for one user."""
        return 1e6 * _median(self.rank)


def _median(seconds: list[float]) -> float:
    return float(np.median(seconds)) if seconds else 0.0


class _Event(NamedTuple):
    user_id: str
    item_id: str
    ts: int  # ms


class Evaluation:
    """Feeds event lines to workers and keeps the score."""

    def __init__(self, settings: Settings, directory: Path, options: Options) -> None:
        self._workers, self._options = Workers(settings, directory), options
        self.mix, self.new, self.old = Tally(), Tally(), Tally()
        self.experts = {name: Tally() for name in NAMES}
        self.without = [Tally() for _ in range(len(NAMES) + 1)]  # each expert, and last none
        self.references = {name: Tally() for name in ("popularity", "isgd")}
        self.interests = InterestTest()
        self.events = 0
        self.times = Times([], [], [])
        self._reference = References(SEED)
        self._taken: dict[str, dict[str, int]] = {}  # by user: ids of items, and their slots
        self._newest_ts = 0
        self.items: set[str] = set()

    def feed(self, line: Line) -> None:
        """Test and learn one line."""
        if line.topic == ITEMS:
            self._workers.apply_item(line)
            return
        worker = self._workers.of(line.key)
        parts = worker.decode(line)
        if not parts[0].decoded.size:
            return  # the worker would reject it
        event = _Event(line.key.decode(), parts[0].decoded.item_id(0), int(parts[0].decoded.ts[0]))
        self._newest_ts = worker.now_ms = max(self._newest_ts, event.ts)
        self._test(worker, event)
        self._learn(worker, event, parts)
        self.events += 1
        if self.events % CHECKPOINT_EVENTS == 0:
            start = time.perf_counter()
            self._workers.checkpoint(self._newest_ts)
            self.times.checkpoint.append(time.perf_counter() - start)

    def recovery(self) -> dict[str, float]:
        """How soon profiles follow a switch of interest. Comes last: it feeds events of made-up users."""
        return recovery(self._workers, self._taken, self._newest_ts)

    def worth(self) -> dict[str, float]:
        """By expert: by how much the mix's HR@20 falls without it, its other weights being what they are."""
        *without, whole = (tally.figures(1)["hr@20"] for tally in self.without)
        return {name: whole - rate for name, rate in zip(NAMES, without, strict=True)}

    def close(self) -> None:
        """Let go of the stores."""
        self._workers.close()

    def _test(self, worker: Worker, event: _Event) -> None:
        """Where the event's item stands, by everybody, if the protocol asks for it."""
        slot = worker.shared.cache.find(worker.partition.number, event.user_id.encode())
        item = worker.shared.catalogue.see(event.item_id)
        taken = {} if self._options.repeats else self._taken.get(event.user_id, {})
        if slot is None:
            return
        is_new = event.item_id not in self._taken.get(event.user_id, {})
        self.interests.test(worker.partition.world, slot, event.user_id, item, event.ts, is_new=is_new)
        if event.item_id in taken:
            return
        reference = self._reference.test(event.user_id, event.item_id, repeats=self._options.repeats)
        for name, tally in self.references.items():
            tally.add(UNRANKED if reference is None else reference[name])
        head = worker.shared.cache.users.head[slot]
        history = int(head["clicks"]) + int(head["purchases"])
        start = time.perf_counter()
        scored = worker.ranker.score(worker.ranker.user(worker.shared.cache.users, slot), event.ts)
        self.times.rank.append(time.perf_counter() - start)
        self._score(worker, scored, item, history, set(taken.values()))

    def _learn(self, worker: Worker, event: _Event, parts: list[Part]) -> None:
        start = time.perf_counter()
        worker.partition.apply_events(parts)
        self.times.event.append(time.perf_counter() - start)
        self._reference.learn(event.user_id, event.item_id)
        item = worker.shared.catalogue.see(event.item_id)
        self.interests.learn(worker.partition.world, event.user_id, item)
        self._taken.setdefault(event.user_id, {})[event.item_id] = item
        self.items.add(event.item_id)

    def _score(self, worker: Worker, scored: Scored, item: int, history: int, taken: set[int]) -> None:
        """Ranks of the item by every expert and by the mix."""
        theta = mix.weights_for(worker.mixer.mix, history)
        columns = np.column_stack([scored.evidence, mix.utilities(scored.evidence, theta)])
        allowed = _candidates(worker, scored, taken)
        place = np.flatnonzero((scored.slots == item) & allowed)
        found = [UNRANKED] * columns.shape[1]
        outside = max(worker.ranker.board.seen - len(taken) - int(allowed.sum()), 0)
        if len(place):
            found = ranks(columns, allowed, int(place[0]), outside).tolist()
        for tally, rank in zip([*self.experts.values(), self.mix], found, strict=True):
            tally.add(rank)
        (self.new if history < NEW else self.old).add(found[-1])
        if self.mix.tested % NOTED_EVERY == 0:
            for tally, column in zip([*self.experts.values(), self.mix], columns.T, strict=True):
                tally.show(scored.slots[first(column, allowed)])
            self._leave_out(scored, theta, allowed, place, outside)

    def _leave_out(
        self,
        scored: Scored,
        theta: NDArray[np.float64],
        allowed: NDArray[np.bool_],
        place: NDArray[np.int64],
        outside: int,
    ) -> None:
        """Ranks by the mix without one expert, and last by the whole."""
        silenced = theta * (1 - np.eye(len(theta) + 1, len(theta)))
        found = [UNRANKED] * len(silenced)
        if len(place):
            found = ranks(scored.evidence @ silenced.T, allowed, int(place[0]), outside).tolist()
        for tally, rank in zip(self.without, found, strict=True):
            tally.add(rank)


def _candidates(worker: Worker, scored: Scored, taken: set[int]) -> NDArray[np.bool_]:
    """Which of the scored items somebody took before, and this user did not."""
    allowed = worker.ranker.board.taken.copy()
    allowed[[slot for slot in taken if slot < len(allowed)]] = False
    return allowed[scored.slots]


def ordered(lines: Iterable[Line], options: Options) -> Iterator[Line]:
    """Lines up to the limit of events; with `shuffle_ties` those of equal times in a random, repeatable order."""
    tied = _shuffled(lines) if options.shuffle_ties else lines
    events = 0
    for line in tied:
        if line.topic != ITEMS:
            if events == options.limit:
                return
            events += 1
        yield line


def _shuffled(lines: Iterable[Line]) -> Iterator[Line]:
    rng = random.Random(SEED)  # noqa: S311 - no secret
    for _, group in groupby(lines, key=lambda line: (line.topic == ITEMS, line.ts)):
        tied = list(group)
        rng.shuffle(tied)
        yield from tied
