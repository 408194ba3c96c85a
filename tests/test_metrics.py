"""Metrics: histograms that take many values, series that are there from the start, ends that outlive their process."""

from pathlib import Path
from typing import get_args

import pytest
from aiokafka.errors import KafkaConnectionError, ProducerFenced
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from streamer import metrics
from streamer.engine.ends import FILE, KILLED_CODE, Ends
from streamer.engine.exit import StalledError, judge
from streamer.errors import BrokerError, StateError, TopicsError
from streamer.pipeline.decode import Reason

EDGES = (0.5, 1.0, 2.5)


def samples(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """Value by name and upper edge."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {(each.name, each.labels.get("le", "")): each.value for family in families for each in family.samples}


@given(st.lists(st.lists(st.one_of(st.floats(0, 10), st.sampled_from(EDGES)))))
def test_many_values_at_once_count_as_one_by_one(batches: list[list[float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    many = metrics.BatchHistogram("h", "What.", EDGES, ours)
    single = Histogram("h", "What.", buckets=EDGES, registry=theirs)
    for batch in batches:
        many.observe(batch)
        for value in batch:
            single.observe(value)
    assert samples(ours) == pytest.approx(samples(theirs))


def test_the_objective_is_an_edge_of_the_publish_latency() -> None:
    assert 1 in metrics.PUBLISH_EDGES


def test_every_series_is_there_before_its_first_count() -> None:
    metrics.forget()
    for reason in get_args(Reason):
        assert metrics.REGISTRY.get_sample_value("streamer_rejected_total", {"reason": reason}) == 0
    click = {"type": "click", "outcome": "duplicate"}
    assert metrics.REGISTRY.get_sample_value("streamer_events_total", click) == 0


# ---- ends
@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    """A registry of its own for what `Ends` tells."""
    registry = CollectorRegistry()
    monkeypatch.setattr(metrics, "ENDS", metrics.Counter("ends_total", "What.", ["how"], registry=registry))
    monkeypatch.setattr(metrics, "LAST_EXIT_CODE", metrics.Gauge("last", "What.", registry=registry))
    return registry


def test_ends_are_counted_over_all_runs(tmp_path: Path, told: CollectorRegistry) -> None:
    for how, code in (("fenced", 75), ("fenced", 75), ("stopped", 0)):
        Ends(tmp_path).note(how, code)
    Ends(tmp_path)  # and no end
    Ends(tmp_path).tell()
    counts = {how: told.get_sample_value("ends_total", {"how": how}) for how in ("fenced", "stopped", "killed")}
    assert counts == {"fenced": 2, "stopped": 1, "killed": 1}
    assert told.get_sample_value("last") == KILLED_CODE


def test_the_first_run_has_no_end_before_it(tmp_path: Path, told: CollectorRegistry) -> None:
    Ends(tmp_path).tell()
    assert told.get_sample_value("ends_total", {"how": "killed"}) == told.get_sample_value("last") == 0


def test_a_note_that_cannot_be_read_or_written_stops_nobody(tmp_path: Path, told: CollectorRegistry) -> None:
    (tmp_path / FILE).write_bytes(b'{"last_co')
    Ends(tmp_path).note("stopped", 0)
    Ends(tmp_path / "gone").note("stopped", 0)
    Ends(tmp_path).tell()
    assert told.get_sample_value("ends_total", {"how": "stopped"}) == 1


@pytest.mark.parametrize(
    ("exc", "how", "code"),
    [
        (None, "stopped", 0),
        (KeyboardInterrupt(), "stopped", 0),
        (ProducerFenced(), "fenced", 75),
        (StalledError("9 records wait"), "stalled", 75),
        (KafkaConnectionError(), "kafka", 75),
        (BrokerError("no broker"), "kafka", 3),
        (TopicsError("no topics"), "refused", 4),
        (StateError("newer"), "refused", 6),
        (RuntimeError("a hole"), "fault", 70),
    ],
)
def test_an_end_is_called_what_it_was(exc: BaseException | None, how: str, code: int) -> None:
    assert judge(exc) == (how, code)
