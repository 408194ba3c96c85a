"""The capacity model: its worked number, and what has to hold at every size."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.tools import size as model
from streamer.tools.size import size
from tests.worker_process import ROOT


def test_the_worked_number() -> None:
    found = size(10_000_000, 100_000)
    assert (found.workers, found.partitions) == (8, 48)
    assert found.broker_cores == pytest.approx(1.2)
    assert found.cache_users == 125_000


@given(st.integers(1, 10**9), st.integers(1, 2_000_000), st.floats(0, 1))
def test_workers_have_equal_shares_room_to_grow_and_time_left(users: int, events: int, cached: float) -> None:
    found = size(users, events, cached)
    assert found.partitions % found.workers == 0
    assert found.workers >= 2
    assert found.partitions >= model.SPARE * found.workers
    transactions = found.partitions * model.TRANSACTION_MS / model.REST_MS
    busy = events * (model.EVENT_US + model.ROW_US) / 1e6 + transactions
    assert busy <= model.BUSY * found.workers * (1 + 1e-9)
    assert found.cache_users * model.USER_BYTES <= model.MEMORY_BYTES + model.USER_BYTES


def test_costs_are_those_that_the_benchmark_measured() -> None:
    """`make bench ARGS="--report deploy"` measures them anew: then they are to be set here, and in the runbook."""
    growth = json.loads((ROOT / "deploy" / "benchmarks.json").read_bytes())["growth"]
    assert pytest.approx(growth["us_per_event"], rel=0.1) == model.EVENT_US
    assert pytest.approx(growth["us_per_row"], rel=0.1) == model.ROW_US
    assert pytest.approx(growth["bytes_per_user"], rel=0.1) == model.USER_BYTES
