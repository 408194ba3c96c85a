"""The command line. A command parses, loads the settings and calls one function; nothing imports this package.

A new command is a function in one of the modules and a line in `COMMANDS` or `GROUPS`. What is heavy (numba, Faust,
Kafka clients, pydantic) is imported inside the command that needs it: `--help` answers at once.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer

from streamer import __version__
from streamer.cli import admin, feed, look, measure, operate, rejected, serve, state
from streamer.errors import StreamerError

EXIT_CODES = (
    "Exit codes: 0 done · 1 it did not work, the message says why · 2 wrong arguments or settings · 3 no broker ·"
    " 4 topics missing or of the wrong shape · 5 data directory full, read-only or in use ·"
    " 6 state of a newer version · 7 events were deleted before they were read · 130 Ctrl-C"
)
# Where the command stands in `--help`, and what it is called there.
COMMANDS: tuple[tuple[str, str, Callable[..., None]], ...] = (
    ("Run", "demo", serve.demo),
    ("Run", "worker", serve.worker),
    ("Run", "kafka", serve.kafka),
    ("Feed", "simulate", feed.simulate),
    ("Feed", "replay", feed.replay),
    ("Look", "profile", look.profile),
    ("Look", "watch", look.watch),
    ("Look", "dashboard", look.dashboard),
    ("Look", "doctor", operate.doctor),
    ("Keep", "backup", state.backup),
    ("Keep", "restore", state.restore),
    ("Keep", "reset", state.reset),
    ("Measure", "evaluate", measure.evaluate),
    ("Measure", "rank-speed", measure.rank_speed),
    ("Measure", "bench", serve.bench),
    ("Measure", "size", operate.size),
)
GROUPS: tuple[tuple[str, str, dict[str, Callable[..., None]]], ...] = (
    (
        "rejected",
        "What was not taken in, and putting it back.",
        {"list": rejected.show, "replay": rejected.replay},
    ),
    ("topics", "Create and check the topics.", {"create": admin.create, "check": admin.check}),
    ("config", "The settings in force.", {"show": admin.show}),
)
FORM: dict[str, Any] = {"no_args_is_help": True, "epilog": EXIT_CODES}


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"streamer {__version__}")
        raise typer.Exit


def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Real-time user profiles from event streams.

    Every setting is a variable STREAMER_…: `streamer config show` lists them all. To begin: streamer demo
    """


def _build() -> typer.Typer:
    app = typer.Typer(name="streamer", pretty_exceptions_enable=False, **FORM)
    app.callback()(_root)
    for panel, name, command in COMMANDS:
        app.command(name, rich_help_panel=panel, epilog=EXIT_CODES)(command)
    for name, text, commands in GROUPS:
        group = typer.Typer(help=text, **FORM)
        for verb, command in commands.items():
            group.command(verb, epilog=EXIT_CODES)(command)
        app.add_typer(group, name=name, rich_help_panel="Set up")
    return app


app = _build()


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit; a StreamerError becomes its message on standard error and its exit code."""
    try:
        app(arguments, prog_name="streamer")
    except StreamerError as exc:
        from streamer import logs

        logs.report(exc)
        sys.exit(exc.exit_code)
    sys.exit(0)
