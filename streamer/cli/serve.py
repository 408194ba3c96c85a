"""Commands that stay up: the worker, the embedded Kafka, and the demo that is both and more."""

import signal
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from streamer.cli.common import AsJson, Brokers, DataDir, HttpPort, Partitions, TopicPrefix, load


def demo(
    *,
    seconds: Annotated[float | None, typer.Option(min=1, help="Stop after so long; default: run until Ctrl-C.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, readable=True, help="Replay these event lines instead of simulating."
        ),
    ] = None,
    http_port: HttpPort = None,
    partitions: Partitions = None,
    as_json: AsJson = False,
) -> None:
    """Kafka, events, a worker and its page, all at once and all on this machine.

    Needs nothing but this program: Kafka is embedded and takes free ports. Ends with a summary. Kill the worker while
    you watch: another one goes on where it stopped.

    Example: streamer demo --seconds 60
    """
    settings = load(http_port=http_port, partitions=partitions)
    from streamer.tools.demo import run

    raise typer.Exit(run(settings, seconds=seconds, data=data, as_json=as_json))


def worker(
    *,
    brokers: Brokers = None,
    topic_prefix: TopicPrefix = None,
    data_dir: DataDir = None,
    http_port: HttpPort = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start it again when it crashes or is killed, where nothing else does.")
    ] = False,
) -> None:
    """The service: read events, keep profiles up to date, publish what changed.

    One process, one core; start more on other data directories and they share the partitions. SIGTERM and Ctrl-C
    drain it and exit 0 within 30 s. Exit codes 70 and 75 ask for a restart.

    Example: STREAMER_LOG_FORMAT=json streamer worker --brokers kafka:9092
    """
    options = {"brokers": brokers, "topic_prefix": topic_prefix, "data_dir": data_dir, "http_port": http_port}
    settings = load(**options)
    if restart:
        from streamer.tools.supervisor import supervise, worker_command

        raise typer.Exit(supervise(worker_command(**options)))
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler)  # until the worker can drain, stopping is just that
        from streamer.engine.app import run_worker

        raise typer.Exit(run_worker(settings))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def kafka(
    *,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on the loopback address; 0 takes a free one.")
    ] = 9092,
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where Kafka keeps its data; default: kafka in STREAMER_DATA_DIR."),
    ] = None,
) -> None:
    """A real Apache Kafka with one node, for this machine alone, in the foreground.

    Prints a line when it is ready. SIGTERM and Ctrl-C stop it; started again on the same directory it has everything.

    Example: streamer kafka --port 9092 --data-dir ./kafka
    """
    settings = load()
    from streamer.tools.kafka import run_foreground

    raise typer.Exit(run_foreground(port, data_dir or settings.data_dir / "kafka"))


class BenchPart(StrEnum):
    """The parts of the benchmark, in their order."""

    SPEED = "speed"
    LATENCY = "latency"
    HTTP = "http"
    GROWTH = "growth"
    MEMORY = "memory"
    SCALING = "scaling"


def bench(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Everything short: to see it work, not to be quoted.")] = False,
    only: Annotated[
        list[BenchPart] | None, typer.Option("--only", help="Just this part; may be given several times.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="DIR", help="Write BENCHMARKS.md and its pictures there too.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Measure a worker on one core, beside its peers, in one run on an embedded Kafka.

    Speed beside Kafka Streams, Quix Streams, a stock Faust agent and the floor; latency; the API under load; how cost
    grows with users and items; restart and restore; memory; two workers. Exits 1 when a part failed; the others are
    measured all the same.

    Example: streamer bench --quick --only speed --json
    """
    settings = load(data_dir=data_dir)
    from streamer.tools.bench.run import run

    raise typer.Exit(run(settings, as_json=as_json, quick=quick, only=only or (), directory=report))
