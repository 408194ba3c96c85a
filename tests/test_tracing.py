"""Trace contexts: which headers are one, whose they are, and for how long they are kept."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from streamer.engine import tracing
from streamer.engine.tracing import Traces, context
from streamer.events import KIND_OF_TOPIC, Click
from streamer.pipeline.assemble import Part
from streamer.pipeline.decode import Decoded

PARENT = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
OTHER = ("traceparent", b"00-11111111111111111111111111111111-2222222222222222-00")
STATE = ("tracestate", b"shop=1")


@dataclass
class Record:
    key: bytes
    headers: Any = ()
    value: bytes = b""
    timestamp: int = 0


@dataclass
class Batch:
    """Records of one take: those at `bad` were rejected."""

    records: list[Record]
    bad: set[int] = field(default_factory=set)

    def part(self) -> Part:
        places = np.array([i for i in range(len(self.records)) if i not in self.bad], np.int64)
        events = [Click(f"e{i}", "u", "mug", 1) for i in places]
        return Part(KIND_OF_TOPIC["clicks"], self.records, Decoded(events, places, places, [], 0))


def note(traces: Traces, *records: Record, bad: set[int] | None = None, order: list[int] | None = None) -> None:
    """All good records are applied, in their order or another."""
    part = Batch(list(records), bad or set()).part()
    traces.note([part], np.arange(len(part.decoded.events)) if order is None else np.array(order))


@pytest.mark.parametrize(
    ("headers", "passed_on"),
    [
        ([("via", b"shop"), PARENT, STATE], [PARENT, STATE]),
        ([STATE, PARENT], [PARENT, STATE]),
        ([PARENT], [PARENT]),
        ([STATE], []),
        ([], []),
        ([("traceparent", None)], []),
        ([("traceparent", b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01")], []),
        ([("traceparent", b"ff" + PARENT[1][2:])], []),
        ([("traceparent", PARENT[1].upper())], []),
        ([("traceparent", b"01" + PARENT[1][2:] + b"-later")], [("traceparent", b"01" + PARENT[1][2:] + b"-later")]),
        ([PARENT, ("tracestate", b"x" * 513)], [PARENT]),
    ],
)
def test_only_a_context_that_holds_is_passed_on(headers: list[Any], passed_on: list[Any]) -> None:
    assert context(headers) == passed_on


def test_the_latest_applied_event_of_a_user_counts() -> None:
    traces = Traces()
    note(traces, Record(b"ada", [PARENT]), Record(b"bob", [PARENT]), Record(b"ada", [OTHER]), order=[2, 1, 0])
    assert traces.take([b"ada", b"bob"]) == {b"ada": [PARENT], b"bob": [PARENT]}


def test_a_later_event_without_a_trace_ends_the_trace() -> None:
    traces = Traces()
    note(traces, Record(b"ada", [PARENT]), Record(b"bob", [PARENT]))
    note(traces, Record(b"ada"))
    assert traces.take([b"ada", b"bob"]) == {b"bob": [PARENT]}


def test_a_rejected_record_gives_its_trace_to_nobody() -> None:
    traces = Traces()
    note(traces, Record(b"eve", [OTHER]), Record(b"ada", [PARENT]), bad={0})
    assert traces.take([b"eve", b"ada"]) == {b"ada": [PARENT]}


def test_a_trace_waits_until_its_user_is_published_and_is_told_once() -> None:
    traces = Traces()
    note(traces, Record(b"ada", [PARENT]))
    assert traces.take([b"bob"]) == {}
    assert traces.take([b"ada"]) == {b"ada": [PARENT]}
    assert traces.take([b"ada"]) == {}


def test_traces_of_users_who_are_never_published_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "USERS", 2)
    traces = Traces()
    note(traces, *(Record(b"u%d" % n, [PARENT]) for n in range(3)))
    assert traces.take([b"u0", b"u1", b"u2"]) == {}
