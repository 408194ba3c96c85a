"""The result: one object for programs."""

from typing import Any

import msgspec

from streamer.tools.bench.cores import Machine
from streamer.tools.bench.growth import Growth
from streamer.tools.bench.http import Answers
from streamer.tools.bench.latency import Latency
from streamer.tools.bench.memory import Memory
from streamer.tools.bench.scaling import Scaling
from streamer.tools.bench.speed import Speeds


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was measured; a part that was not asked for, or failed, is absent. `seconds` is how long each part took."""

    machine: Machine
    versions: dict[str, str]
    quick: bool
    seconds: dict[str, float]
    failed: dict[str, str] = {}
    speed: Speeds | None = None
    latency: dict[str, Latency] | None = None
    http: dict[str, Answers] | None = None
    growth: Growth | None = None
    memory: Memory | None = None
    scaling: Scaling | None = None


def as_object(report: Report) -> dict[str, Any]:
    """For `--json`: figures that others look for by name stand at the top."""
    found: dict[str, Any] = msgspec.to_builtins(report)
    found |= found.pop("speed", {})
    if report.latency is not None:
        found["latency_ms"] = found.pop("latency")
    if report.http is not None:
        found["http_ms"] = found.pop("http")
    if report.growth is not None:
        found["restore_rows_per_second"] = report.growth.back.restore_rows_per_second
        found["restart_seconds"] = report.growth.back.restart_seconds
        found["bytes_per_user"] = report.growth.bytes_per_user
    return found
