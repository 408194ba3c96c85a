"""Runs the parts of the benchmark, one after another, on one embedded Kafka."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import psutil
from aiokafka.errors import KafkaError as AioKafkaError
from kafka.errors import KafkaError
from rich.console import Console

from streamer.errors import StreamerError
from streamer.settings import Settings
from streamer.tools.bench import growth, http, latency, markdown, memory, pictures, scaling, speed, tables
from streamer.tools.bench.cores import choose, machine, pinned, versions
from streamer.tools.bench.plan import FULL, PARTS, QUICK
from streamer.tools.bench.report import Report, as_object
from streamer.tools.bench.stage import Stage
from streamer.tools.kafka import EmbeddedKafka
from streamer.tools.stopping import signals_unwind

# Settings of a cluster that do not fit a broker and a worker on this machine alone.
ALONE: Final = {"security_protocol": "PLAINTEXT", "replication": -1, "advertised_url": "", "http_host": "127.0.0.1"}

MEASURES: Final[dict[str, Callable[[Stage, Any], Any]]] = {
    "speed": speed.measure,
    "latency": latency.measure,
    "http": http.measure,
    "growth": growth.measure,
    "memory": memory.measure,
    "scaling": scaling.measure,
}


def run(settings: Settings, *, as_json: bool, quick: bool, only: Sequence[str], directory: Path | None) -> int:
    """Measure `only` some parts or, where it is empty, all, and print; with a `directory`, write the report there too.

    Returns the exit code: 1 when a part failed, whose error stands in the result; the other parts are measured all
    the same. Raises StreamerError when Kafka does not start, or matplotlib is missing for a report. Needs some 10 GB
    of disk (`quick`: 2 GB) in `data_dir` where that is set, else in the system's temporary directory; all of it is
    removed.
    """
    if directory is not None:
        pictures.require()
    console = Console(stderr=True, highlight=False)
    parent = settings.data_dir if "data_dir" in settings.model_fields_set else None
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with signals_unwind(), TemporaryDirectory(prefix="streamer-bench-", dir=parent) as home:
        report = _measure(settings, Path(home), only or PARTS, console, quick=quick)
    if as_json:
        sys.stdout.write(msgspec.json.encode(as_object(report)).decode() + "\n")
    else:
        tables.show(report, Console(highlight=False))
    if directory is not None:
        markdown.write(report, directory)
    return 1 if report.failed else 0


def _measure(settings: Settings, home: Path, parts: Sequence[str], console: Console, *, quick: bool) -> Report:
    cores = choose()
    report = Report(machine=machine(cores), versions=versions(), quick=quick, seconds={})
    with pinned(cores.broker), EmbeddedKafka(home / "kafka") as kafka:
        ours = settings.model_copy(update={"brokers": kafka.brokers, **ALONE})
        for part in (part for part in PARTS if part in parts):
            console.print(f"{part} …")
            stage = Stage(ours, home / part, cores, kafka.pid, lambda line: console.print(f"  {line}"))
            stage.home.mkdir()
            report = _part(report, part, stage, quick=quick)
    return report


def _part(report: Report, part: str, stage: Stage, *, quick: bool) -> Report:
    start_s = time.monotonic()
    changes: dict[str, Any] = {}
    try:
        changes[part] = MEASURES[part](stage, getattr(QUICK if quick else FULL, part))
    except (StreamerError, KafkaError, AioKafkaError, psutil.Error) as exc:
        stage.say(f"failed: {exc}")
        changes["failed"] = {**report.failed, part: str(exc)}
    seconds = {**report.seconds, part: round(time.monotonic() - start_s, 1)}
    return msgspec.structs.replace(report, seconds=seconds, **changes)
