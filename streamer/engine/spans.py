"""Spans for OpenTelemetry, one a batch and one a checkpoint: with the extra `otel`, and where STREAMER_OTLP_URL is set.

A batch is linked to the traces of its events, a checkpoint to its batches and to the traces that its profiles go on
with. Spans are made when they are over, so that nothing is between the work and its end.
"""

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, Tracer
from opentelemetry.util.types import AttributeValue

from streamer import __version__
from streamer.engine.position import Effects, Take
from streamer.engine.tracing import PARENT, context
from streamer.engine.transactions import Headers
from streamer.settings import Settings

LINKS: Final = 64  # to events and to batches: OpenTelemetry keeps 128 of a span


@lru_cache(maxsize=1)
def tracer(settings: Settings) -> Tracer:
    """The tracer of this process: it sends in the background, and what is left when the process ends."""
    resource = Resource.create({"service.name": settings.app_id, "service.instance.id": settings.source})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(settings.otlp_url)))
    return provider.get_tracer("streamer", __version__)


class Spans:
    """The spans of one partition."""

    def __init__(self, own: Tracer, partition: int) -> None:
        self._tracer, self._partition = own, partition
        self._batches: deque[SpanContext] = deque(maxlen=LINKS)  # since the last checkpoint

    def batch(self, takes: Sequence[Take], began_ns: int) -> None:
        """A batch was applied; it began then (Unix ns)."""
        some = (record for take in takes if take.records.have_headers for record in take.records)
        links = _links(context(record.headers) for record in some if record.headers)
        about: dict[str, AttributeValue] = {
            "streamer.topics": [take.topic for take in takes],
            "streamer.records": sum(len(take.records) for take in takes),
        }
        self._batches.append(self._span("apply", SpanKind.CONSUMER, links, about, began_ns))

    def checkpoint(self, effects: Effects, began_ns: int) -> None:
        """A checkpoint was committed; it began then (Unix ns)."""
        links = [*map(Link, self._batches), *_links(effects.traces.values())]
        about = {
            "streamer.rows": len(effects.rows),
            "streamer.profiles": len(effects.publications),
            "streamer.rejected": len(effects.rejected),
        }
        self._span("checkpoint", SpanKind.PRODUCER, links, about, began_ns)
        self._batches.clear()

    def _span(
        self, name: str, kind: SpanKind, links: Sequence[Link], about: Mapping[str, AttributeValue], began_ns: int
    ) -> SpanContext:
        attributes = {"streamer.partition": self._partition, **about}
        span = self._tracer.start_span(name, kind=kind, links=links, attributes=attributes, start_time=began_ns)
        span.end(max(time.time_ns(), began_ns))  # the clock may have been set back meanwhile
        return span.get_span_context()


def _links(contexts: Iterable[Headers]) -> list[Link]:
    """The first of them, as links."""
    parents = (dict(each)[PARENT] for each in contexts if each)
    return [Link(_span_context(parent)) for parent in islice(parents, LINKS)]


def _span_context(parent: bytes) -> SpanContext:
    _, trace, span, flags = parent.split(b"-")[:4]
    return SpanContext(int(trace, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
