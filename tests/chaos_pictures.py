"""Graphs of a chaos run: what Prometheus saw, with every fault shaded and named."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos import Chaos, Span

Axes = Any

# File: title, unit, queries by label ({{x}} is a label of the series).
GRAPHS: dict[str, tuple[str, str, dict[str, str]]] = {
    "flow": (
        "Flow",
        "a second",
        {
            "events": "sum(rate(streamer_events_total[10s]))",
            "profiles": "sum(rate(streamer_profiles_published_total[10s]))",
            "rejected": "sum(rate(streamer_rejected_total[10s]))",
        },
    ),
    "lag": ("Records that wait", "records", {"{{topic}}": "sum by (topic) (streamer_lag_records)"}),
    "latency": (
        "From event to profile",
        "s",
        {
            "half": "histogram_quantile(0.5, sum by (le) (rate(streamer_publish_latency_seconds_bucket[10s])))",
            "99 %": "histogram_quantile(0.99, sum by (le) (rate(streamer_publish_latency_seconds_bucket[10s])))",
        },
    ),
    "workers": (
        "Workers",
        "",
        {
            "up": 'sum(up{job="streamer"})',
            "ready": "sum(streamer_ready)",
            "partitions owned": "sum(streamer_partitions_owned)",
        },
    ),
    "standstill": ("Standstill", "s", {"{{instance}}": "streamer_stalled_seconds"}),
    "ends": ("Ends of runs", "", {"{{how}}": "sum by (how) (streamer_ends_total)"}),
}


def draw(chaos: Chaos, directory: Path) -> list[Path]:
    """One file a graph, and one of the alerts."""
    drawn = [
        _figure(chaos, directory / f"{name}.png", title, lambda axes, what=what: _lines(chaos, axes, what))
        for name, what in GRAPHS.items()
        for title in [what[0]]
    ]
    return [*drawn, _figure(chaos, directory / "alerts.png", "Alerts that fire", lambda axes: _alerts(chaos, axes))]


def _figure(chaos: Chaos, path: Path, title: str, paint: Callable[[Axes], None]) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4), layout="constrained")
    axes = figure.add_subplot()
    paint(axes)
    for span in chaos.spans:
        _shade(chaos, axes, span)
    axes.set(xlabel="minutes", xlim=(0, (time.time() - chaos.start_s) / 60))
    axes.set_title(title, loc="left", pad=18)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
    return path


def _shade(chaos: Chaos, axes: Axes, span: Span) -> None:
    """Dark while the fault goes on, light until all is well again."""
    start, over, well = ((at - chaos.start_s) / 60 for at in (span.start_s, span.over_s, span.well_s))
    axes.axvspan(start, over, color="tab:red", alpha=0.15, lw=0)
    axes.axvspan(over, well, color="tab:orange", alpha=0.1, lw=0)
    axes.annotate(span.name, (start, 1.01), xycoords=("data", "axes fraction"), fontsize=8, color="tab:red")


def _lines(chaos: Chaos, axes: Axes, what: tuple[str, str, dict[str, str]]) -> None:
    _, unit, queries = what
    for label, query in queries.items():
        for each in chaos.series(query, chaos.start_s):
            times, values = zip(*each.points, strict=True)
            name = label
            for key, value in each.labels.items():
                name = name.replace(f"{{{{{key}}}}}", value)
            axes.plot([(at - chaos.start_s) / 60 for at in times], values, label=name, lw=1)
    axes.set(ylabel=unit, ylim=(0, None))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)


def _alerts(chaos: Chaos, axes: Axes) -> None:
    found = chaos.series('max by (alertname) (ALERTS{alertstate="firing"})', chaos.start_s)
    for row, each in enumerate(sorted(found, key=lambda each: each.points[0][0], reverse=True)):
        minutes = [(at - chaos.start_s) / 60 for at, _ in each.points]
        axes.plot(minutes, [row] * len(minutes), "s", ms=4, color="tab:red")
        axes.text(minutes[0], row + 0.2, each.labels["alertname"], fontsize=8)
    axes.set(yticks=[], ylim=(-0.5, len(found)))
