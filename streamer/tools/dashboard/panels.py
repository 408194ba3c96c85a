"""The panels of the dashboard as panels.toml has them. Nothing about Grafana's JSON."""

import tomllib
from pathlib import Path
from typing import Literal

import msgspec


class Panel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One panel: see the head of panels.toml."""

    title: str
    what: str
    unit: str
    query: dict[str, str]
    kind: Literal["timeseries", "stat", "heatmap"] = "timeseries"
    red: float | None = None
    red_below: float | None = None


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Panels under a heading."""

    title: str
    panel: tuple[Panel, ...]


def rows() -> tuple[Row, ...]:
    """All of them, in their order."""
    text = Path(__file__).with_name("panels.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text)["row"], tuple[Row, ...])
