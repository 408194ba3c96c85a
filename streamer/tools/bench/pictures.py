"""The curves of the benchmark as SVG files. Needs matplotlib, which comes with the extra `bench`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from streamer.errors import StreamerError
from streamer.tools.bench.growth import Growth
from streamer.tools.bench.memory import Memory
from streamer.tools.bench.report import Report
from streamer.tools.bench.speed import OURS, PEERS, Speeds
from streamer.tools.bench.tables import NAMES
from streamer.tools.bench.window import WAITING

INCHES: Final = (7.0, 3.2)
# Text stays text, and the same figures give the same file.
STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "streamer",
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
}

Axes = Any


def draw(report: Report, directory: Path) -> dict[str, list[str]]:
    """Draw what was measured into `directory`; file names by the title of the table that they belong to."""
    drawn: dict[str, list[str]] = {}

    def picture(title: str, name: str, paint: Callable[[Axes], None]) -> None:
        with _axes(directory / f"bench-{name}.svg") as axes:
            paint(axes)
        drawn.setdefault(title, []).append(f"bench-{name}.svg")

    speed, growth, memory = report.speed, report.growth, report.memory
    if speed is not None:
        picture("Events a second", "speed", lambda axes: _speed(axes, speed))
        picture("Where each microsecond goes", "stages", lambda axes: _stages(axes, speed))
    if growth is not None:
        picture("Users", "users", lambda axes: _users(axes, growth))
        picture("Items", "items", lambda axes: _items(axes, growth))
    if memory is not None:
        picture("Memory", "memory", lambda axes: _memory(axes, memory))
    return drawn


def require() -> None:
    """Raise StreamerError where matplotlib is missing."""
    if find_spec("matplotlib") is None:
        raise StreamerError("pictures need matplotlib: install streamer with its extra `bench`")


@contextmanager
def _axes(path: Path) -> Iterator[Axes]:
    import matplotlib as mpl  # takes half a second, and comes with an extra
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=INCHES, layout="constrained")
        yield figure.add_subplot()
        figure.savefig(path, metadata={"Date": None})


def _speed(axes: Axes, speeds: Speeds) -> None:
    names = [name for name in reversed((*OURS, *PEERS)) if name in speeds.events_per_second]
    rates = [speeds.events_per_second[name] for name in names]
    colours = ["tab:blue" if name in OURS else "tab:grey" for name in names]
    bars = axes.barh([NAMES[name] for name in names], rates, color=colours)
    axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates], padding=3)
    axes.set(xscale="log", xlabel="events a second on one core")
    axes.margins(x=0.2)


def _stages(axes: Axes, speeds: Speeds) -> None:
    names = [name for name in reversed(OURS) if name in speeds.cost]
    stages = dict.fromkeys(stage for name in names for stage in speeds.cost[name].stages if stage not in WAITING)
    left = [0.0] * len(names)
    for stage in stages:
        widths = [max(speeds.cost[name].stages.get(stage, 0.0), 0.0) for name in names]
        axes.barh([NAMES[name] for name in names], widths, left=left, label=stage, height=0.6)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set(xlabel="CPU µs an event, waiting left out")
    axes.legend(ncols=5, loc="lower center", bbox_to_anchor=(0.4, 1), frameon=False)


def _users(axes: Axes, growth: Growth) -> None:
    users = [at.users for at in growth.users]
    axes.plot(users, [at.active.cpu_us for at in growth.users], marker="o", label="few active")
    axes.plot(users, [at.anybody.cpu_us for at in growth.users], marker="s", label="anybody")
    axes.set(xscale="log", ylim=(0, None), xlabel="users in the cache", ylabel="CPU µs an event")
    axes.legend()


def _items(axes: Axes, growth: Growth) -> None:
    axes.plot([at.items for at in growth.items], [at.cost.cpu_us for at in growth.items], marker="o")
    axes.set(xscale="log", ylim=(0, None), xlabel="items in the catalogue", ylabel="CPU µs an event")


def _memory(axes: Axes, memory: Memory) -> None:
    for run in (memory.few, memory.many):
        axes.plot(*zip(*run.curve, strict=True), label=f"{run.users:,} users, {run.cache_users:,} in the cache")
    axes.set(ylim=(0, None), xlabel="events committed", ylabel="MiB resident")
    axes.legend()
