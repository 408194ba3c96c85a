"""The result as a page with pictures: BENCHMARKS.md, images/bench-*.svg, and the figures as benchmarks.json."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from streamer.tools.bench import pictures
from streamer.tools.bench.plan import PARTS
from streamer.tools.bench.report import Report, as_object
from streamer.tools.bench.tables import Table, all_tables, heading

COMMAND: Final = "make bench ARGS='--report deploy'"
NOTES: Final = {
    "Events a second": (
        "Same events, same partitions, each one process on one core, the broker on another; all with changelog and"
        " published output; medians of alternating rounds. The light job is a step of gradient descent on a vector of"
        " 64 numbers, 16 fading tags, the row stored, the profile out once a second. The peers run it with a commit a"
        " second, at least once where nothing else is said; streamer commits transactions, exactly once, up to five"
        " seconds apart while there is a backlog. Each one's final state was held against the input, user by user."
    ),
    "Where each microsecond goes": (
        "Stages are timed by the worker itself; send and commit mostly wait for the broker, several partitions at a"
        " time, and do not add up with the rest. `other` is all CPU beyond the other stages: fetching, the event loop,"
        " what sending costs."
    ),
    "Latency": (
        "From the broker's append of an event to its append of the profile that the event changed; both topics have"
        " the broker's own timestamps. A change too small to be published at once waits an hour here: how late those"
        " come is a setting."
    ),
    "The API under load": (
        "Profiles of users in memory, picked at random, over 32 connections, while events flow. The rate of the"
        " questions is held whatever the answers do, and an answer's time counts from when its question was due: what"
        " waits behind a standstill is late too. Who asks goes first on the core that it shares with the broker."
    ),
    "Users": (
        "All users are in the cache. *Few active*: events of 10,000 of them, spread over all, so that rows and"
        " profiles an event are the same at each size. *Anybody*: nearly each event has a row of its own."
    ),
    "Memory": "Users in multiples of what the cache holds: resident memory is bounded by the cache.",
    "Two workers": (
        "Two cores, and the broker needs one: the first line is what a core gives, the second what it costs to be two,"
        " the third what this machine gives when a worker shares the broker's core."
    ),
    "More cores": (
        "A model, not a measurement: cores over the sum of what an event, its share of rows, and the broker cost."
    ),
}


def write(report: Report, directory: Path) -> None:
    """Write page, pictures and figures into `directory`. Needs matplotlib."""
    images = directory / "images"
    images.mkdir(parents=True, exist_ok=True)
    drawn = pictures.draw(report, images)
    (directory / "BENCHMARKS.md").write_text(_page(report, drawn), "utf-8")
    text = msgspec.json.format(msgspec.json.encode(as_object(report)), indent=1)
    (directory / "benchmarks.json").write_bytes(text + b"\n")


def _page(report: Report, drawn: dict[str, list[str]]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    took = ", ".join(f"{name} {seconds:,.0f}" for name, seconds in report.seconds.items())
    lines = [
        "# Benchmarks",
        "",
        f"Made by `{COMMAND}`; all figures are in [benchmarks.json](benchmarks.json).",
        "Rates differ between machines: quote the ratios.",
        "",
        f"- Machine: {heading(report)}",
        f"- Versions: {versions}",
        f"- One part alone: `streamer bench --only PART` with one of {', '.join(PARTS)}",
        f"- Seconds by part: {took}",
    ]
    lines += [f"- **{part} failed**: {why}" for part, why in report.failed.items()]
    for table in (table for part in all_tables(report) for table in part):
        lines += ["", f"## {table.title}", "", *_table(table)]
        if table.title in NOTES:
            lines += ["", NOTES[table.title]]
        lines += [line for name in drawn.get(table.title, []) for line in ("", f"![{table.title}](images/{name})")]
    return "\n".join(lines) + "\n"


def _table(table: Table) -> list[str]:
    line: Callable[[tuple[str, ...]], str] = lambda cells: "| " + " | ".join(cells) + " |"  # noqa: E731 - one expression
    ruler = ("---", *("---:" for _ in table.header[1:]))
    return [line(table.header), line(ruler), *map(line, table.rows)]
