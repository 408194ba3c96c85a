"""What every panel of the dashboard says now, asked of Prometheus: for those who have no Grafana at hand."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import attrgetter

import msgspec

from streamer.tools.dashboard.panels import rows
from streamer.tools.prometheus import Series, ask


class Reading(msgspec.Struct, frozen=True):
    """One query of one panel. `values` by legend; empty where there is no series."""

    row: str
    panel: str
    unit: str
    query: str
    values: dict[str, float | None]  # None: not a number, as of a ratio of nothing


def read(url: str, window: str, span: str) -> Iterator[Reading]:
    """Ask every query. `window` is what rates look back ($__rate_interval), `span` the time shown ($__range).

    Raises StreamerError where Prometheus does not answer.
    """
    for row in rows():
        for panel in row.panel:
            for legend, query in panel.query.items():
                asked = filled(query, window, span)
                yield Reading(row.title, panel.title, panel.unit, asked, _values(legend, ask(url, asked)))


def filled(query: str, window: str, span: str) -> str:
    """A query as Prometheus takes it: Grafana puts these in."""
    return query.replace("$__rate_interval", window).replace("$__range", span)


def _values(legend: str, series: list[Series]) -> dict[str, float | None]:
    return {_legend(legend, each.labels): each.last if math.isfinite(each.last) else None for each in series}


def _legend(text: str, labels: Mapping[str, str]) -> str:
    """A legend for a series, as Grafana writes it.

    >>> _legend("{{topic}}/{{partition}}", {"topic": "clicks", "partition": "3"})
    'clicks/3'
    """
    return re.sub(r"{{(\w+)}}", lambda name: labels.get(name[1], ""), text)


def told(readings: Iterable[Reading]) -> Iterator[str]:
    """Lines for people: under each row's title its panels, each with its queries and what they say."""
    for row, of_row in groupby(readings, attrgetter("row")):
        yield f"\n{row}"
        for panel, of_panel in groupby(of_row, attrgetter("panel")):
            yield f"  {panel}"
            for reading in of_panel:
                said = (f"{name} {figure(value, reading.unit)}".strip() for name, value in reading.values.items())
                yield f"      {reading.query}"
                yield f"      = {', '.join(said) or 'nothing'}"


def figure(value: float | None, unit: str) -> str:
    """A value in a unit of Grafana's.

    >>> figure(0.125, "percentunit"), figure(2_500_000, "bytes"), figure(12.5, "cps"), figure(0.0421, "s")
    ('12.5 %', '2.5 MB', '12.5 a second', '0.0421 s')
    """
    if value is None:
        return "not a number"
    match unit:
        case "percentunit":
            return f"{100 * value:.3g} %"
        case "bytes":
            return f"{value / 1e6:,.4g} MB"
        case "cps" | "reqps":
            return f"{value:,.4g} a second"
        case "s":
            return f"{value:,.4g} s"
        case _:
            return f"{value:,.4g}"
