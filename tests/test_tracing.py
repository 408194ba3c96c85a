"""Trace contexts: which headers are one, whose they are, and for how long they are kept."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, NamedTuple

import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from streamer.engine import tracing
from streamer.engine.position import Effects, Position, Take
from streamer.engine.record_batches import packed
from streamer.engine.spans import LINKS, Spans
from streamer.engine.tracing import Traces, context, spans_of
from streamer.errors import SettingsError
from streamer.events import KIND_OF_TOPIC
from streamer.pipeline.assemble import Events, Part
from streamer.pipeline.decode import decode_events
from streamer.pipeline.records import Records, unpack
from streamer.settings import load
from tests.pipeline_world import LIMITS

PARENT = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
OTHER = ("traceparent", b"00-11111111111111111111111111111111-2222222222222222-00")
STATE = ("tracestate", b"shop=1")
CLICK = b'{"event_id":"e%d","user_id":"%s","item_id":"mug","ts":1}'


class Record(NamedTuple):
    key: bytes
    headers: Sequence[Any] = ()


def fetched(*records: Record, values: Callable[[int, bytes], bytes] = lambda *_: b"") -> Records:
    """Records as the worker's consumer brings them."""
    batch = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for i, record in enumerate(records):
        assert batch.append(i, 0, record.key, values(i, record.key), list(record.headers))
    return unpack([packed(memoryview(batch.build()))])


def note(traces: Traces, *records: Record, bad: set[int] | None = None, order: list[int] | None = None) -> None:
    """All records but the `bad` ones are applied, in their order or another."""
    clicks = fetched(*records, values=lambda i, key: b"{" if i in (bad or ()) else CLICK % (i, key))
    kind = KIND_OF_TOPIC["clicks"]
    events = Events([Part(kind, clicks, decode_events(kind, clicks, LIMITS, 0))])
    traces.note(events, np.arange(len(events)) if order is None else np.array(order))


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
        ([("traceparent", PARENT[1] + b"-later")], []),
        ([("traceparent", b"01" + PARENT[1][2:] + b"-" + b"x" * 512)], []),
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


# ---- spans


class Recorder:
    """The spans of a partition, as a collector gets them."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.spans = Spans(provider.get_tracer("test"), 3)

    def finished(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()


def effects(traces: dict[bytes, Any]) -> Effects:
    nothing: list[Any] = []
    rows = [(b"row", b"")] * 2
    return Effects(
        rows, nothing, nothing, nothing, nothing, nothing, Position(1, 1, {}, {}), np.zeros(0, np.int64), traces
    )


def linked(span: ReadableSpan) -> list[str]:
    return [f"{link.context.trace_id:032x}-{link.context.span_id:016x}" for link in span.links]


def test_a_batch_is_linked_to_the_traces_of_its_events() -> None:
    recorder = Recorder()
    recorder.spans.batch(
        [Take("clicks", fetched(Record(b"ada", [PARENT]), Record(b"bob"), Record(b"eve", [OTHER])), 0)], 5
    )
    [span] = recorder.finished()
    assert linked(span) == [PARENT[1][3:-3].decode(), OTHER[1][3:-3].decode()]
    assert (span.name, span.start_time) == ("apply", 5)
    assert dict(span.attributes or {}) == {
        "streamer.partition": 3,
        "streamer.topics": ("clicks",),
        "streamer.records": 3,
    }


def test_a_checkpoint_is_linked_to_its_batches_and_to_the_traces_of_its_profiles() -> None:
    recorder = Recorder()
    recorder.spans.batch([Take("clicks", fetched(Record(b"ada")), 0)], 5)
    recorder.spans.checkpoint(effects({b"ada": [PARENT]}), 6)
    recorder.spans.checkpoint(effects({}), 7)
    batch, first, second = recorder.finished()
    own = batch.get_span_context()
    assert own is not None
    assert linked(first) == [f"{own.trace_id:032x}-{own.span_id:016x}", PARENT[1][3:-3].decode()]
    assert linked(second) == []
    assert dict(first.attributes or {})["streamer.rows"] == 2


def test_links_are_bounded() -> None:
    recorder = Recorder()
    recorder.spans.batch([Take("clicks", fetched(*[Record(b"ada", [PARENT])] * (3 * LINKS)), 0)], 5)
    assert len(recorder.finished()[0].links) == LINKS


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """A place for spans, and what came in."""
    came: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", came
        server.shutdown()
        thread.join()


def test_spans_go_where_the_setting_says_at_the_latest_when_the_process_ends() -> None:
    with collector() as (url, came):
        script = (
            "from streamer.engine.tracing import spans_of; from streamer.settings import load;"
            f"spans_of(load(otlp_url={url!r}, app_id='shop'))(3).batch([], 5)"
        )
        subprocess.run([sys.executable, "-c", script], check=True)
    assert b"apply" in came[0]
    assert b"shop" in came[0]


def test_where_nobody_collects_spans_none_are_made() -> None:
    assert spans_of(load())(0) is None


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "streamer.engine.spans", None)
    with pytest.raises(SettingsError, match=r"streamer\[otel\]"):
        spans_of(load(otlp_url="http://localhost:4318/v1/traces"))
