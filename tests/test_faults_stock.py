"""The control: a stock Faust agent under the cycles of workers that come and go in order. It has to get them wrong.

What this shows is that the other tests of faults can fail.
"""

import logging
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient

from streamer.tools.kafka import EmbeddedKafka
from tests.deployment import Deployment, Feed, deployed
from tests.fleet import RATE, SOME
from tests.worker_process import WorkerProcess, until

log = logging.getLogger(__name__)

AGENT = ("tests.stock_agent", "worker", "--without-web", "--loglevel=warn")
TURN_S = 30.0  # for a stock agent to go on after a change of the group: one that hangs is wrong as well

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * 3600)]


class Control:
    """Stock agents, and what they counted."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._admin = KafkaAdminClient(bootstrap_servers=deployment.settings.brokers)
        self.first = deployment.worker("stock-1", command=AGENT)

    def _values(self, topic: str) -> Counter[bytes]:
        return Counter(each.value for each in self._deployment.read(self._deployment.settings.topic(topic)))

    @property
    def counted(self) -> Counter[bytes]:
        """How often each event was."""
        return self._values("rejected")

    @property
    def sent(self) -> int:
        """How many events there are."""
        return self._values("clicks").total()

    def has_begun(self) -> bool:
        """Whether some are counted."""
        assert self.first.is_running, self.first.said
        return self.counted.total() > SOME

    def goes_on(self) -> bool:
        """Wait for some more events; false when none come."""
        begin = self.counted.total()
        with suppress(AssertionError):
            until(lambda: self.counted.total() >= begin + SOME, "", TURN_S)
        return self.counted.total() > begin

    def settle(self, members: int) -> None:
        """Wait until the group has so many members that all know it, and they go on."""
        with suppress(AssertionError):
            until(lambda: self._members() == members, "", TURN_S)
        self.goes_on()

    def _members(self) -> int:
        """How many members a settled group has."""
        group = self._admin.describe_groups([self._deployment.settings.group_id])[self._deployment.settings.group_id]
        return len(group["members"]) if group["group_state"] == "Stable" else 0

    def close(self) -> None:
        """Give the connection back."""
        self._admin.close()

    def cycle(self, two: WorkerProcess, three: WorkerProcess) -> None:
        """1 → 2 → 3 → 1."""
        for members, agent in enumerate((two, three), start=2):
            agent.start()
            self.settle(members)
        for agent in (two, three):
            with suppress(AssertionError):  # it hangs
                agent.stop()
        self.settle(1)


def test_stock_agent_under_the_same_cycles_loses_or_doubles_events(
    kafka: EmbeddedKafka, tmp_path: Path, rounds: int
) -> None:
    with deployed(kafka.brokers, tmp_path) as deployment, closing(Control(deployment)) as control:
        with Feed(deployment, RATE) as feed:
            until(control.has_begun, "the stock agent at work")
        until(lambda: control.counted.total() == control.sent, "as long as nobody comes or goes, it counts right")
        others = [deployment.worker(f"stock-{n}", command=AGENT, start=False) for n in (2, 3)]
        with Feed(deployment, RATE, first=feed.sent):
            for _ in range(rounds):
                control.cycle(*others)
        while control.goes_on():
            pass
        counted = control.counted
        lost, again = control.sent - len(counted), counted.total() - len(counted)
        log.info("the stock agent lost %d of %d events and counted %d again", lost, control.sent, again)
        assert lost + again > 0, f"{rounds} rounds without a mistake"
