"""The demo's Prometheus, where one is installed: at the end it says what the dashboard shows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from streamer.errors import StreamerError
from streamer.settings import Settings
from streamer.tools.dashboard.values import read, told
from streamer.tools.demo_view import show
from streamer.tools.demo_worker import reachable
from streamer.tools.prometheus import Prometheus, is_installed

RULES: Final = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules.yml"  # in a checkout
WINDOW, SPAN = "15s", "1h"  # what rates look back, and how much is shown: a demo is short


@contextmanager
def watched(settings: Settings, home: Path, console: Console) -> Iterator[str | None]:
    """Prometheus beside the worker of these settings, or None where it is not installed; yields its URL."""
    if not is_installed():
        yield None
        return
    target = f"{reachable(settings.http_host)}:{settings.http_port}"
    rules = RULES if RULES.exists() else None
    with Prometheus(home, [target], rules) as prometheus:
        show(console, f"Prometheus   {prometheus.url}/graph   (streamer dashboard --prometheus {prometheus.url})")
        yield prometheus.url


def tell(url: str, console: Console) -> None:
    """What every panel says now. A Prometheus that is gone costs a line, not the demo."""
    try:
        lines = list(told(read(url, WINDOW, SPAN)))
    except StreamerError as exc:
        lines = [str(exc)]
    for line in lines:
        show(console, Text(line, style="dim"))
