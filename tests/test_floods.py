"""Floods: what one user does in a burst hardly changes what all users share."""

from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import pytest

from streamer.events import Click, Item, UserEvent
from streamer.model.tag_mix import LONGEST
from streamer.pipeline.catalogue import prior_of
from streamer.pipeline.hashing import hash_id
from streamer.settings import load
from streamer.tools.evaluate.workers import Workers
from streamer.tools.lines import encode_line, parse
from streamer.tools.simulate import FILE_START_MS, generate

EVENTS = 20_000  # seven minutes of `streamer simulate`
BURST = 3_000  # within half a minute
MOST = 1.2  # times that a bot may raise the population's share of a tag by


class Shop:
    """A worker that has taken in what the simulated people did."""

    def __init__(self, directory: Path) -> None:
        self._workers = Workers(load(partitions=1, cache_users=10_000), directory)
        self.items: list[Item] = []
        self.end_ms = 0
        everything = generate(1, 500, 1000, 50.0, FILE_START_MS)
        for event in islice(everything, EVENTS):
            self._feed(event)

    def share(self, tag: str) -> float:
        """The population's share of a tag, when all models are published."""
        for minute in range(10):
            self._workers.checkpoint(self.end_ms + minute * 60_000)
        catalogue = self._workers.of(b"").shared.catalogue
        catalogue.tag_prior, catalogue.prior_floor = prior_of(catalogue.tag_use())
        return float(catalogue.population.share[catalogue.tag_table.get(hash_id(tag)), LONGEST])

    def flood(self, bot: str, items: list[Item]) -> None:
        """A bot clicks on these, over and over."""
        for event in self._clicks(bot, items):
            self._feed(event)

    def close(self) -> None:
        self._workers.close()

    def _clicks(self, bot: str, items: list[Item]) -> Iterator[Click]:
        for n, item in enumerate(islice(cycle(items), BURST)):
            yield Click(event_id=f"{bot} {n}", user_id=bot, item_id=item.item_id, ts=self.end_ms + 10)

    def _feed(self, event: UserEvent | Item) -> None:
        [line] = parse([encode_line(event)], lambda bad: pytest.fail(bad.reason))
        if isinstance(event, Item):
            self.items.append(event)
            self._workers.apply_item(line)
            return
        self.end_ms = event.ts
        worker = self._workers.of(line.key)
        worker.partition.apply_events(worker.decode(line))


def test_a_bot_does_not_own_a_tag(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    try:
        flooded = [item for item in shop.items if "computers" in item.tags]
        for bot, items in {"on one item": flooded[:1], "on every item": flooded}.items():
            before = shop.share("computers")
            shop.flood(bot, items)
            assert 1 < shop.share("computers") / before < MOST, bot
    finally:
        shop.close()
