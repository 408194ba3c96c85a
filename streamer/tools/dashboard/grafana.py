"""The dashboard as Grafana reads it.

python -m streamer.tools.dashboard.grafana write    writes deploy/grafana/dashboards/streamer.json
python -m streamer.tools.dashboard.grafana check    exit 1 if it is not what panels.toml says
"""

import json
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

from streamer.tools.dashboard.panels import Panel, Row, rows

FILE: Final = Path(__file__).parents[3] / "deploy" / "grafana" / "dashboards" / "streamer.json"
SOURCE: Final = {"type": "prometheus", "uid": "streamer-prometheus"}  # as it is provisioned
COLUMNS: Final = 24
SIZES: Final = {"stat": (4, 4), "timeseries": (8, 8), "heatmap": (8, 8)}  # columns and lines of the grid
TRAITS: Final[dict[str, dict[str, Any]]] = {
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "textMode": "auto"},
    "timeseries": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    "heatmap": {"calculate": False, "yAxis": {"unit": "s"}, "color": {"mode": "scheme", "scheme": "Blues"}},
}


def dashboard() -> dict[str, Any]:
    """The whole of it."""
    return {
        "uid": "streamer",
        "title": "streamer",
        "description": "Real-time user profiles. The runbook is deploy/README.md.",
        "tags": ["streamer"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [{"name": "filter", "label": "only", "type": "adhoc", "datasource": SOURCE}]},
        "annotations": {"list": [_alerts()]},
        "panels": list(_panels(rows())),
    }


def _alerts() -> dict[str, Any]:
    """Alerts that fire are marked in every panel."""
    return {
        "name": "alerts",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{service="streamer", alertstate="firing"}',
        "titleFormat": "{{alertname}}",
    }


def _panels(all_rows: tuple[Row, ...]) -> Iterator[dict[str, Any]]:
    """Each row's heading, and its panels from left to right."""
    ids, y = count(1), 0
    for row in all_rows:
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        yield {"id": next(ids), "type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []}
        x, y, line = 0, y + 1, 0
        for panel in row.panel:
            width, height = SIZES[panel.kind]
            if x + width > COLUMNS or (x and height != line):
                x, y = 0, y + line
            line = height
            yield _panel(next(ids), panel, {"x": x, "y": y, "w": width, "h": height})
            x += width
        y += line


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {"refId": chr(65 + i), "expr": expr, "legendFormat": legend, **_form(panel)}
        for i, (legend, expr) in enumerate(panel.query.items())
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.what,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": TRAITS[panel.kind],
        "targets": targets,
    }


def _form(panel: Panel) -> dict[str, Any]:
    return {"format": "heatmap"} if panel.kind == "heatmap" else {}


def _defaults(panel: Panel) -> dict[str, Any]:
    colours, edge = ("green", "red"), panel.red
    if panel.red_below is not None:
        colours, edge = ("red", "green"), panel.red_below
    defaults: dict[str, Any] = {"unit": panel.unit}
    if edge is not None:
        steps = [{"color": colours[0], "value": None}, {"color": colours[1], "value": edge}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        if panel.kind == "timeseries":
            defaults["custom"] = {"thresholdsStyle": {"mode": "line"}}
    return defaults


def text() -> str:
    """As it stands in the file."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


def main(command: str) -> int:
    """Command line; returns the exit code."""
    if command == "write":
        FILE.write_text(text(), encoding="utf-8")
    elif FILE.read_text(encoding="utf-8") != text():
        sys.stderr.write(f"{FILE.name} is not what panels.toml says: run `make fix`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
