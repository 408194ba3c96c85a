"""Rankings of this worker: one ranker for all its partitions, a mix for each, and what predictions were worth."""

import asyncio
import logging
import math
import time
from typing import Any, Final

import numpy as np
from mode import Service
from numpy.typing import NDArray

from streamer import metrics
from streamer.engine.exit import leave
from streamer.engine.slices import Slices
from streamer.engine.store import MIX, Row, Store
from streamer.model.experts import NAMES
from streamer.pipeline import recommend
from streamer.pipeline.fold import APPLIED, Columns, Folded, blank, fold
from streamer.pipeline.layout import Users
from streamer.pipeline.mixer import LEAST_THINNING, Mixer
from streamer.pipeline.population import Mind
from streamer.pipeline.publish import World
from streamer.pipeline.quality import Meter
from streamer.pipeline.rank import Ranker
from streamer.pipeline.recommend import Wanted
from streamer.pipeline.space import ItemSpace, make_board
from streamer.recommendation import Quality, Recommendations, SimilarItems

# Of one core, for ranking sampled events before they are learned from: at 30,000 events a second 0.3 µs an event.
SAMPLE_SHARE: Final = 0.01
YOUNG_FAVOUR: Final = 1 << LEAST_THINNING  # times its share, for a mix that samples as much more often
SAMPLE_EVERY_MS: Final = 1000  # between two looks at what the sample costs, while it keeps within its share
AT_ONCE_S: Final = 0.002  # for the sample of a batch, and one event more; just one while slices are short
RENEW_SHARE: Final = 0.04  # of one core, for linking new models, and as much for boards: one of a million items: 0.5 s
LINK_S: Final = 30.0  # between two boards
RENEW_S: Final = 2.0  # the shortest time between two boards, as between two refreshes of the item space
LINKED_AT_ONCE, LINKED_SHORT = 20, 5  # models, in 2 ms: then others have their turn; while slices are short


class Ranking:
    """What a worker ranks with. Made before item models are read: from then on their transitions are kept."""

    def __init__(self, space: ItemSpace, partitions: int, most_bytes: int, slices: Slices) -> None:
        self.space, self.ranker, self.meter = space, Ranker(space, most_bytes), Meter()
        self._partitions, self._slices = partitions, slices
        self.sample_share, self._at_once_s = SAMPLE_SHARE / partitions, AT_ONCE_S
        self.mixers: dict[int, Mixer] = {}  # of the partitions that are open
        self.ready = False  # there is a board
        self.folded = self._folded_before = 0  # events, of our partitions; before the board was made

    def spare_no_time(self) -> None:
        """From here on the sample goes by the events alone: the same on every machine, in batches of any size."""
        self.sample_share = self._at_once_s = math.inf

    @property
    def at_once_s(self) -> float:
        """How long the sample of a batch may have taken for one event more."""
        return 0.0 if self._slices.are_short else self._at_once_s

    @property
    def is_current(self) -> bool:
        """Whether the board rests on more events than came since: else it tells nothing of how good experts are.

        A backlog goes by within a few boards, the first of which know little or nothing. Partitions of other workers
        are taken to have as many events as ours.
        """
        since = (self.folded - self._folded_before) * self._partitions / max(len(self.mixers), 1)
        return self.ranker.board.events >= since

    def renew_at_once(self) -> None:
        """As `renew`, in one piece."""
        self._folded_before = self.folded
        self.ranker.renew()

    async def renew(self) -> float:
        """Take in new models, beside other work; returns for how many seconds to leave it at that."""
        await self._link()
        folded = self.folded
        spent = await asyncio.to_thread(self._make_board)
        self._folded_before = folded
        metrics.STAGE_SECONDS.labels("board").inc(spent)
        self.ready = True
        return max(RENEW_S, spent / RENEW_SHARE)

    async def _link(self) -> None:
        """Link the models that have come by now in small pieces; once there is a board, with rests and for LINK_S only.

        A model that is new to us takes 0.1 ms, and after a start or a backlog they are as many as there are items: what
        is left waits for the board after the next.
        """
        models, table = self.space.catalogue.models, self.space.catalogue.table
        left, until = models.unlinked(table), time.monotonic() + (LINK_S if self.ready else math.inf)
        while left > 0 and time.monotonic() < until:
            at_once = LINKED_SHORT if self._slices.are_short else LINKED_AT_ONCE
            start = time.perf_counter()
            models.link(table, at_once)
            took = time.perf_counter() - start
            metrics.STAGE_SECONDS.labels("board").inc(took)
            left -= at_once
            await (asyncio.sleep(took / RENEW_SHARE) if self.ready else self._slices.wait())

    def _make_board(self) -> float:
        """Returns the seconds of CPU that it took."""
        start = time.thread_time()
        self.ranker.board = make_board(self.space.sources())
        return time.thread_time() - start

    def recommend(self, partition: int, world: World, slot: int, user_id: str, wanted: Wanted) -> Recommendations:
        """The best for a user, as of their latest event, by what the partition's mix learned. Changes nothing."""
        return recommend.recommend(self.ranker, self.mixers[partition].mix, world, slot, user_id, wanted)

    def similar(self, item_id: str, n: int) -> SimilarItems | None:
        """The n items most alike; None for an unknown item. Changes nothing."""
        return recommend.similar(self.ranker, item_id, n)

    def quality(self) -> Quality:
        """What predictions were worth, and what each expert counts for all users."""
        shared = [mixer.mix.weights[0] for mixer in self.mixers.values()]
        weights = dict(zip(NAMES, np.mean(shared, axis=0).tolist(), strict=True)) if shared else {}
        return self.meter.quality(self.space.model, weights)


class Renewal(Service):
    """Renews what a worker ranks with, as long as it runs."""

    logger = logging.getLogger("mode")  # a service's comings and goings: filtered with the library's own

    def __init__(self, ranking: Ranking, loaded: asyncio.Event, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._ranking, self._loaded = ranking, loaded

    @Service.task
    async def _follow(self) -> None:
        await self._loaded.wait()
        while not self.should_stop:
            try:
                wait_s = await self._ranking.renew()
            except Exception as exc:
                leave("renewing the board failed", exc)
            await self.sleep(wait_s)


class PartitionMix:
    """The mix of one partition: what its events teach it, and its row."""

    def __init__(self, ranking: Ranking, number: int) -> None:
        self._ranking = ranking
        self.mixer = ranking.mixers[number] = Mixer(ranking.ranker)
        self._spent_s, self._looked_at = 0.0, 0

    def fold(
        self,
        users: Users,
        batch: Columns,
        order: NDArray[np.int64],
        mind: Mind,
        tick: int,
        items: NDArray[np.int64],
        now_ms: int,
    ) -> Folded:
        """`pipeline.fold`, with a sample of the events ranked before and learned by the mix after they are folded."""
        folded, done, first, spent_s = blank(len(order)), 0, self._ranking.folded, 0.0
        for place in self.mixer.sample(batch.event[order]):
            self._ranking.folded = first + place
            if not self._ranking.is_current or spent_s > self._ranking.at_once_s:
                break
            young = self.mixer.is_young
            fold(users, batch, order[done:place], mind, tick, folded)
            done = place + 1
            one, start = order[place], time.perf_counter()
            tested = self.mixer.test(users, int(batch.slot[one]), int(items[one]), int(batch.ts[one]))
            fold(users, batch, order[place:done], mind, tick, folded)
            if tested is not None and folded.outcome[one] == APPLIED:
                self._ranking.meter.add(self.mixer.learn(tested), tested.history, now_ms)
            took_s = time.perf_counter() - start
            spent_s += took_s
            self._spent_s += took_s / (YOUNG_FAVOUR if young else 1)
        self._ranking.folded = first + len(order)
        self._keep_within_share(now_ms)
        return fold(users, batch, order[done:], mind, tick, folded)

    def _keep_within_share(self, now_ms: int) -> None:
        """Thin the sample at once when it has had its share of a second; let it grow when a second took little."""
        elapsed_ms = now_ms - self._looked_at
        excess = self._spent_s / (max(elapsed_ms, SAMPLE_EVERY_MS) / 1000 * self._ranking.sample_share)
        if excess <= 1 and elapsed_ms < SAMPLE_EVERY_MS:
            return
        self.mixer.thin(math.ceil(math.log2(excess)) if excess > 1 else -int(excess < 1 / 4))
        self._spent_s, self._looked_at = 0.0, now_ms

    def rows(self) -> list[Row]:
        """What a checkpoint stores."""
        row = self.mixer.take()
        return [] if row is None else [(MIX, row)]

    def load(self, store: Store) -> None:
        """Take over what is stored."""
        row = store.get(MIX)
        if row is not None:
            self.mixer.load(row)
