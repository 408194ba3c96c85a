"""The result: one object for programs, tables for people."""

from math import isnan
from statistics import median

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from streamer.tools.bench.cores import Machine
from streamer.tools.bench.memory import Resident
from streamer.tools.bench.rounds import STAGES, Speed
from streamer.tools.bench.world import World

PEERS = ("streamer", "stock_faust", "floor")
NAMES = {
    "streamer": "streamer worker, whole job",
    "stock_faust": "stock Faust agent, light job",
    "floor": "floor: fetch and decode alone",
}


class Memory(msgspec.Struct, frozen=True):
    """The same worker with few and with many users; `ratio` is the peak with many over the peak with few."""

    few: Resident
    many: Resident
    ratio: float


class Report(msgspec.Struct, frozen=True):
    """Medians over the rounds. Figures an event are of the worker's median round; `cpu` there is all it used."""

    machine: Machine
    versions: dict[str, str]
    workload: dict[str, int]
    events_per_second: dict[str, float]
    ratios: dict[str, float]  # of the worker's events a second
    cpu_us_per_event: dict[str, float | None]
    stages_us_per_event: dict[str, float | None]
    profiles_per_event: float
    rows_per_event: float
    seconds_between_checkpoints: float  # of a partition: the fewer, the fewer rows and profiles an event
    bytes_per_user: dict[str, float]
    memory: Memory
    rounds: dict[str, list[float]]


def summarise(
    machine: Machine,
    versions: dict[str, str],
    world: World,
    speeds: dict[str, list[Speed]],
    user_bytes: int,
    few: Resident,
    many: Resident,
) -> Report:
    """Medians and ratios."""
    rates = {name: median(s.per_second for s in speeds[name]) for name in PEERS}
    cpu = {name: _figure(median(s.cpu_us for s in speeds[name])) for name in PEERS}
    middle = sorted(speeds["streamer"], key=lambda s: s.per_second)[len(speeds["streamer"]) // 2]
    stages = {name: _figure(middle.details[name]) for name in STAGES}
    return Report(
        machine=machine,
        versions=versions,
        workload={"users": world.users, "items": world.items, "events": world.events},
        events_per_second={name: round(rate, 1) for name, rate in rates.items()},
        ratios={name: round(rates["streamer"] / rates[name], 3) for name in PEERS[1:]},
        cpu_us_per_event=cpu,
        stages_us_per_event={**stages, "cpu": _figure(middle.cpu_us)},
        profiles_per_event=round(middle.details["profiles"], 4),
        rows_per_event=round(middle.details["rows"], 4),
        seconds_between_checkpoints=round(middle.details["checkpoint_s"], 3),
        bytes_per_user={"memory": user_bytes, "disk": many.disk_bytes_per_user},
        memory=Memory(few, many, round(many.peak_mb / few.peak_mb, 3)),
        rounds={name: [round(s.per_second, 1) for s in speeds[name]] for name in PEERS},
    )


def show(report: Report, console: Console) -> None:
    """Tables."""
    machine = report.machine
    pinned = "broker and peer on a core each" if machine.pinned else "not pinned: this system or machine cannot"
    console.print(f"{machine.processor}, {machine.cores} cores, {pinned}; load before the start {machine.load}")
    console.print(_speeds(report))
    console.print(_stages(report))
    console.print(_memory(report))
    of_user = report.bytes_per_user
    console.print(
        f"a user takes {of_user['memory']:,.0f} bytes in the cache, all included, and {of_user['disk']:,.0f} on disk"
    )


def _speeds(report: Report) -> Table:
    table = _table("one process on one core", "events/s", "streamer is", "CPU µs/event", "rounds")
    for name in PEERS:
        ratio = f"{report.ratios[name]:.2f}×" if name in report.ratios else ""
        rounds = " ".join(f"{rate:,.0f}" for rate in report.rounds[name])
        rate = f"{report.events_per_second[name]:,.0f}"
        table.add_row(NAMES[name], rate, ratio, _text(report.cpu_us_per_event[name]), rounds)
    return table


def _stages(report: Report) -> Table:
    """Send and commit mostly wait, many partitions at a time: they do not add up with the rest to the CPU used."""
    table = _table("where the worker's time goes", "µs/event")
    for name, microseconds in report.stages_us_per_event.items():
        waits = ", waiting included" if name in ("send", "commit") else ""
        table.add_row("all its CPU time" if name == "cpu" else name + waits, _text(microseconds))
    table.add_row("profiles published an event", f"{report.profiles_per_event:.3f}")
    table.add_row("rows written an event", f"{report.rows_per_event:.3f}")
    table.add_row("seconds between a partition's checkpoints", f"{report.seconds_between_checkpoints:.2f}")
    return table


def _memory(report: Report) -> Table:
    table = _table("memory", "users", "in the cache", "peak MiB", "at the end", "events/s")
    for name, run in (("few users", report.memory.few), ("many users", report.memory.many)):
        cells = (run.users, min(run.users, run.cache_users), run.peak_mb, run.end_mb, run.events_per_second)
        table.add_row(name, *(f"{cell:,.0f}" for cell in cells))
    table.add_row("ratio", "", "", f"{report.memory.ratio:.2f}")
    return table


def _table(first: str, *columns: str) -> Table:
    table = Table(first, box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _figure(number: float) -> float | None:
    """Rounded; None for NaN, which JSON does not have."""
    return None if isnan(number) else round(number, 3)


def _text(number: float | None) -> str:
    return "not measured" if number is None else f"{number:,.2f}"
