"""The long rounds: every fault again and again under load (`--rounds`). `make test-faults` runs them."""

import random
from collections.abc import Callable

import pytest

from tests.deployment import Deployment, Feed
from tests.fleet import (
    FENCED,
    KILLED,
    RATE,
    SOME,
    STEPS,
    check,
    fail_at,
    freeze_until_others_took_over,
    lose_disk,
    share,
)
from tests.worker_process import WorkerProcess

HOURS = 4 * 3600  # s: the longest that many rounds take on a slow machine
pytestmark = [pytest.mark.slow, pytest.mark.timeout(HOURS)]

Fault = Callable[[Deployment, WorkerProcess], None]


def kill(fleet: Deployment, process: WorkerProcess) -> None:
    process.crash()


def kill_and_lose_disk(fleet: Deployment, process: WorkerProcess) -> None:
    lose_disk(process)


def restart(fleet: Deployment, process: WorkerProcess) -> None:
    assert process.stop() == 0, process.said
    fleet.wait_progress(SOME)
    process.start()


def fail_somewhere(fleet: Deployment, process: WorkerProcess) -> None:
    fail_at(fleet, process, random.choice(STEPS))


@pytest.mark.parametrize("fault", [kill, kill_and_lose_disk, freeze_until_others_took_over, restart, fail_somewhere])
def test_many_rounds_of_a_fault_cost_nothing(fleet: Deployment, rounds: int, fault: Fault) -> None:
    workers = [fleet.worker(f"w{n}") for n in range(3)]
    share(fleet, *workers)
    with Feed(fleet, RATE):
        for n in range(rounds):
            fault(fleet, workers[n % 3])
            fleet.wait_progress(SOME)
            share(fleet, *workers)
    check(fleet)
    assert set(fleet.ends or ()) <= {KILLED, FENCED}


def test_many_rounds_of_growing_and_shrinking_cost_nothing(fleet: Deployment, rounds: int) -> None:
    """1 → 2 → 3 → 1, each in order."""
    one, two, three = (fleet.worker(f"w{n}") for n in range(3))
    share(fleet, one, two, three)
    with Feed(fleet, RATE):
        for _ in range(rounds):
            assert two.stop() == three.stop() == 0
            share(fleet, one)
            fleet.wait_progress(SOME)
            two.start()
            share(fleet, one, two)
            three.start()
            share(fleet, one, two, three)
            fleet.wait_progress(SOME)
    check(fleet)
    assert set(fleet.ends or ()) <= {FENCED}
