"""The result as tables, for a terminal and for Markdown: a table is a title, a header, and rows of text."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from streamer.tools.bench.growth import Growth
from streamer.tools.bench.http import Answers
from streamer.tools.bench.latency import Latency
from streamer.tools.bench.memory import Memory
from streamer.tools.bench.report import Report
from streamer.tools.bench.scaling import Arrangement, Scaling
from streamer.tools.bench.speed import OURS, PEERS, Speeds
from streamer.tools.bench.window import WAITING, Cost

NAMES = {
    "streamer": "streamer worker, whole job",
    "streamer_light": "streamer worker, light job",
    "kafka_streams": "Kafka Streams (Java), light job, at least once",
    "kafka_streams_exactly_once": "Kafka Streams (Java), light job, exactly once",
    "quix_streams": "Quix Streams, light job",
    "stock_faust": "stock Faust agent, light job",
    "floor": "floor: fetch and decode alone",
}
CORES = (2, 4, 8, 16)
ROWS = (0.1, 0.4, 1.0)  # an event: from few hot users to everybody different


class Table(NamedTuple):
    """All columns but the first are numbers."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def show(report: Report, console: Console) -> None:
    """Print everything."""
    console.print(heading(report))
    for part in all_tables(report):
        for table in part:
            console.print(_rich(table))
    for name, why in report.failed.items():
        console.print(f"{name} failed: {why}")


def heading(report: Report) -> str:
    """The machine in a line."""
    machine = report.machine
    pinned = "broker and peer on a core each" if machine.pinned else "not pinned: this system or machine cannot"
    return (
        f"{machine.processor}, {machine.cores} cores, {machine.memory_gb:g} GB, {machine.system}; {pinned};"
        f" load before the start {machine.load}{'; quick: too short to be quoted' if report.quick else ''}"
    )


def all_tables(report: Report) -> Iterator[list[Table]]:
    """The tables of each part that was measured."""
    if report.speed is not None:
        yield speed_tables(report.speed)
    if report.latency is not None:
        yield [latency_table(report.latency)]
    if report.http is not None:
        yield [http_table(report.http)]
    if report.growth is not None:
        yield growth_tables(report.growth)
    if report.memory is not None:
        yield [memory_table(report.memory)]
    if report.scaling is not None:
        yield scaling_tables(report.scaling, report.growth)


def speed_tables(speeds: Speeds) -> list[Table]:
    """Rates and ratios; where the time goes."""
    header = (
        "one process on one core",
        "events/s",
        "whole job is",
        "light job is",
        "CPU µs/event",
        "profiles/event",
        "rounds",
    )
    rows: list[tuple[str, ...]] = []
    for name in (*OURS, *PEERS):
        if name in speeds.left_out:
            rows.append((f"{NAMES[name]}: left out, {speeds.left_out[name]}", *[""] * (len(header) - 1)))
            continue
        ratios = (f"{r[name]:.2f}×" if name in r else "" for r in (speeds.ratios, speeds.ratios_light))
        rounds = " ".join(f"{rate:,.0f}" for rate in speeds.rounds[name])
        rate, cpu = speeds.events_per_second[name], speeds.cpu_us_per_event[name]
        profiles = f"{speeds.profiles_per_event[name]:.3f}"
        rows.append((NAMES[name], f"{rate:,.0f}", *ratios, f"{cpu:.2f}", profiles, rounds))
    return [Table("Events a second", header, rows), _stages(speeds.cost)]


def _stages(costs: dict[str, Cost]) -> Table:
    names = list(dict.fromkeys(stage for cost in costs.values() for stage in cost.stages))
    rows = [
        (
            f"{name}, mostly waiting" if name in WAITING else name,
            *(f"{cost.stages.get(name, 0):.2f}" for cost in costs.values()),
        )
        for name in names
    ]
    rows += [
        ("**all CPU of the worker**", *(f"{cost.cpu_us:.2f}" for cost in costs.values())),
        ("all CPU of the broker", *(f"{cost.broker_cpu_us:.2f}" for cost in costs.values())),
        ("profiles published an event", *(f"{cost.profiles:.3f}" for cost in costs.values())),
        ("rows written an event", *(f"{cost.rows:.3f}" for cost in costs.values())),
        (
            "s between a partition's checkpoints",
            *(f"{cost.seconds_between_checkpoints:.2f}" for cost in costs.values()),
        ),
    ]
    return Table("Where each microsecond goes", ("µs an event", *(NAMES[name] for name in costs)), rows)


def latency_table(latency: dict[str, Latency]) -> Table:
    """By rate."""
    rows = [
        (
            rate,
            *(f"{ms:,.0f}" for ms in (at.p50, at.p90, at.p99, at.max)),
            f"{at.profiles:,}",
            f"{at.events_per_second:,.0f}",
        )
        for rate, at in latency.items()
    ]
    return Table("Latency", ("events a second", "p50 ms", "p90 ms", "p99 ms", "most ms", "profiles", "sent/s"), rows)


def http_table(answers: dict[str, Answers]) -> Table:
    """By events a second."""
    rows = [
        (
            rate,
            *(f"{ms:,.1f}" for ms in (at.p50, at.p90, at.p99, at.max)),
            f"{at.questions_per_second:,.0f}",
            f"{at.refused:,}",
            f"{at.events_per_second:,.0f}",
        )
        for rate, at in answers.items()
    ]
    header = ("events a second", "p50 ms", "p90 ms", "p99 ms", "most ms", "answered/s", "refused", "sent/s")
    return Table("The API under load", header, rows)


def growth_tables(growth: Growth) -> list[Table]:
    """The curves, what a miss costs, and coming back."""
    header = ("in the cache", "CPU µs/event, few active", "CPU µs/event, anybody", "rows/event", "MiB resident")
    users = [
        (
            f"{at.users:,} users",
            f"{at.active.cpu_us:.2f}",
            f"{at.anybody.cpu_us:.2f}",
            f"{at.active.rows:.2f}, {at.anybody.rows:.2f}",
            f"{at.resident_mb:,.0f}",
        )
        for at in growth.users
    ]
    items = [(f"{at.items:,} items", f"{at.cost.cpu_us:.2f}", f"{at.cost.rows:.2f}") for at in growth.items]
    back = growth.back
    figures = [
        ("dearest over cheapest, users / items", f"{growth.users_flatness:.2f} / {growth.items_flatness:.2f}"),
        ("an event, without its row, µs", f"{growth.us_per_event:.2f}"),
        ("a row, µs", f"{growth.us_per_row:.2f}"),
        ("a miss in the cache, µs", f"{back.miss_us:.2f}"),
        ("a user in the cache, all included, bytes", f"{growth.bytes_per_user:,}"),
        ("a user on disk, bytes", f"{growth.disk_bytes_per_user:,}"),
        (f"restart with {back.users:,} users on disk, s to ready", f"{back.restart_seconds:.1f}"),
        (f"restart without them ({back.restored_rows:,} rows), s to ready", f"{back.restore_seconds:.1f}"),
        ("rows restored a second", f"{back.restore_rows_per_second:,.0f}"),
    ]
    return [
        Table("Users", header, users),
        Table("Items", ("in the catalogue", "CPU µs/event", "rows/event"), items),
        Table("What size costs", ("", "measured"), figures),
    ]


def memory_table(memory: Memory) -> Table:
    """Few and many users."""
    rows = [
        (name, *(f"{cell:,.0f}" for cell in (run.users, run.cache_users, run.peak_mb, run.end_mb)))
        for name, run in (("few users", memory.few), ("many users", memory.many))
    ]
    header = ("memory", "users", "in the cache", "peak MiB", "at the end")
    return Table("Memory", header, [*rows, ("many over few", "", "", f"{memory.ratio:.2f}", "")])


def scaling_tables(scaling: Scaling, growth: Growth | None) -> list[Table]:
    """What two workers do here, and what more cores would do."""
    named: tuple[tuple[str, Arrangement], ...] = (
        ("one worker, on a core of its own", scaling.one),
        ("two workers on one core", scaling.two_on_one_core),
        ("two workers on two cores, one shared with the broker", scaling.two_on_two_cores),
    )
    rows = [(name, f"{at.events_per_second:,.0f}", f"{at.cpu_us:.2f}", f"{at.broker_cpu_us:.2f}") for name, at in named]
    header = ("workers", "events/s", "workers' CPU µs/event", "broker's CPU µs/event")
    measured = Table("Two workers", header, rows)
    return [measured] if growth is None else [measured, _model(growth, scaling.one.broker_cpu_us)]


def _model(growth: Growth, broker_us: float) -> Table:
    """Cores shared by workers and broker in the proportion of the CPU that they need."""
    rows = [
        (
            f"{cores} cores",
            *(f"{cores * 1e6 / (growth.us_per_event + at * growth.us_per_row + broker_us):,.0f}" for at in ROWS),
        )
        for cores in CORES
    ]
    header = ("events/s modelled, brokers included", *(f"{at:g} rows an event" for at in ROWS))
    return Table("More cores", header, rows)


def _rich(table: Table) -> RichTable:
    first, *others = table.header
    rich = RichTable(first, title=table.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in others:
        rich.add_column(column, justify="right")
    for row in table.rows:
        rich.add_row(*(cell.replace("**", "") for cell in row))
    return rich
