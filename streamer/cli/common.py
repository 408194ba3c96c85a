"""What all commands share: options that override the environment, settings with their warnings, and tables."""

import sys
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # pydantic and structlog take a quarter of a second: `--help` does without
    import msgspec
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from streamer.settings import Settings

PIPED_CELLS = 160  # a file or a pager has no edge: the widest table of ours fits
_WINS = "Wins over STREAMER_"

Brokers = Annotated[str | None, typer.Option("--brokers", metavar="HOST:PORT,…", help=f"{_WINS}BROKERS.")]
TopicPrefix = Annotated[str | None, typer.Option("--topic-prefix", metavar="TEXT", help=f"{_WINS}TOPIC_PREFIX.")]
Partitions = Annotated[int | None, typer.Option("--partitions", metavar="N", help=f"{_WINS}PARTITIONS.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", metavar="DIR", help=f"{_WINS}DATA_DIR.")]
HttpPort = Annotated[int | None, typer.Option("--http-port", metavar="PORT", help=f"{_WINS}HTTP_PORT.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of text for people.")]


def load(**options: Any) -> "Settings":
    """Settings from environment and options; sets up logs and names unknown variables. Raises SettingsError."""
    import structlog

    from streamer import logs, settings

    loaded = settings.load(**options)
    logs.configure(loaded)
    known = [f"STREAMER_{name.upper()}" for name in type(loaded).model_fields]
    for name in settings.unknown_variables():
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "`streamer config show` lists all"
        structlog.get_logger(__name__).warning(f"{name} is not a setting and is ignored: {hint}")
    return loaded


def unix_ms(option: str, text: str, otherwise: str = "") -> int:
    """Unix milliseconds as they are, or of an ISO 8601 time with its offset. Raises SettingsError.

    `otherwise` is what `option` takes besides a time.
    """
    from streamer.errors import SettingsError

    if text.isascii() and text.isdigit():
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise SettingsError(
            f"{option} {text}: give {otherwise}a time with its zone as 2026-01-31T12:00:00Z, or Unix ms"
        )
    return round(time.timestamp() * 1000)


def confirm(*, yes: bool) -> None:
    """Ask whether to do what was shown; ends the command where the answer is no, or nobody is there to give one."""
    from streamer.errors import SettingsError

    if yes:
        return
    if not sys.stdin.isatty():
        raise SettingsError("nobody is here to ask: look at it with --dry-run, then add --yes")
    typer.confirm("Do it?", abort=True)


def print_summary(summary: "msgspec.Struct", *, as_json: bool) -> None:
    """What a command did, as one JSON object or as a table of its fields."""
    import msgspec

    if as_json:
        typer.echo(msgspec.json.encode(summary).decode())
        return
    rows = table("", "")
    rows.show_header = False
    for name, value in msgspec.structs.asdict(summary).items():
        rows.add_row(name.replace("_", " "), _figure(value))
    print_rich(rows)


def wide() -> bool:
    """Whether there is room for a column of prose."""
    return _console().width >= 110


def _console() -> "Console":
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_CELLS
    return console


def _figure(value: Any) -> str:
    match value:
        case dict():
            return ", ".join(f"{name} {_figure(part)}" for name, part in value.items()) or "nothing"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.1f}"
        case _:
            return str(value)


def table(*columns: str) -> "Table":
    """An empty table in our form."""
    from rich import box
    from rich.table import Table

    return Table(*columns, box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)


def print_rich(*parts: "Text | Table") -> None:
    """Print to standard output, coloured on a terminal only. A text is one line however narrow the terminal is."""
    from rich.text import Text

    console = _console()
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))
