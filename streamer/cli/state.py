"""Commands about the state of an app: where it stands in its sources, and copies of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamer.cli.common import (
    AsJson,
    Brokers,
    DataDir,
    Partitions,
    TopicPrefix,
    confirm,
    load,
    print_rich,
    table,
    unix_ms,
)

if TYPE_CHECKING:
    from rich.table import Table

    from streamer.engine.reset import Reset


def reset(
    *,
    to: Annotated[
        str,
        typer.Option(
            metavar="earliest|TIME",
            help="The first event that is there, or the first that Kafka got from TIME on:"
            " 2026-01-31T12:00:00Z, or Unix ms.",
        ),
    ],
    topic: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this topic (clicks, …; may be repeated); default: all of events."),
    ] = None,
    drop_state: Annotated[
        bool, typer.Option("--drop-state", help="Forget all users and items: what is read then is all there is.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    brokers: Brokers = None,
    topic_prefix: TopicPrefix = None,
    partitions: Partitions = None,
    as_json: AsJson = False,
) -> None:
    """Have the workers read on from another place, back or forward. All of them must be stopped.

    Events that are read again: those whose ids are among their user's latest STREAMER_SEEN_IDS (64) are dropped as
    duplicates, ALL OLDER ONES COUNT AGAIN. To count each once, rebuild: --to earliest --drop-state.

    --drop-state deletes what is known of all users and items, and reads `items` from its beginning. While it is
    rebuilt, profiles are published that know a part of the events. Their versions go on counting up, so subscribers
    take them. A user of whom no event is left keeps the last published profile.

    Example: streamer reset --to earliest --drop-state --dry-run

    Example: streamer reset --to 2026-01-31T12:00:00Z --topic purchases
    """
    settings = load(brokers=brokers, topic_prefix=topic_prefix, partitions=partitions)
    from streamer.engine.reset import Target, carry_out, plan

    target = Target(None if to == "earliest" else unix_ms("--to", to, "`earliest`, "), tuple(topic or ()), drop_state)
    planned = plan(settings, target)
    if not as_json:
        print_rich(_moves(planned))
        typer.echo(_summary(planned))
    doing = not dry_run and planned.changes_anything
    if doing:
        confirm(yes=yes)
        planned = carry_out(settings, target)
    if as_json:
        _print_json(planned, done=doing)
    elif doing:
        typer.echo("done: start the workers")


def backup(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; not there yet, beside others that are.")],
    *,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Copy the state of the worker that runs on the data directory, while it runs.

    Each partition as of one moment. On the same file system nothing is copied, tables become links; take another disk
    for a backup that survives this one. Run it where the worker runs, as its user: it is the worker that writes to DIR.
    Each worker has its own partitions. Not needed for safety, the changelog has everything: it makes a restore short.

    Example: streamer backup /backups/2026-01-31
    """
    settings = load(data_dir=data_dir)
    import msgspec

    from streamer.engine.backup_service import ask

    manifest = ask(settings, directory)
    if as_json:
        typer.echo(msgspec.json.encode(manifest).decode())
    else:
        typer.echo(f"{len(manifest.offsets)} partitions of {manifest.app} are in {directory}")


def restore(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="What `streamer backup` wrote.")],
    *,
    data_dir: DataDir = None,
    topic_prefix: TopicPrefix = None,
    partitions: Partitions = None,
    as_json: AsJson = False,
) -> None:
    """Put a backup into the data directory of a stopped worker, which then catches up from the changelog.

    Partitions that are there and reach further are left alone; others are moved aside. A backup that is older than a
    week, or of another cluster, is put back and then not used: the worker says so and restores from the changelog.

    Example: streamer restore /backups/2026-01-31
    """
    settings = load(data_dir=data_dir, topic_prefix=topic_prefix, partitions=partitions)
    import msgspec

    from streamer.engine.backup import put_back

    done = put_back(settings, directory)
    if as_json:
        typer.echo(msgspec.json.encode(done).decode())
    else:
        kept = f", {len(done.kept)} that reach further were left alone" if done.kept else ""
        typer.echo(f"{len(done.restored)} partitions are back in {settings.data_dir}{kept}: start the worker")


def _moves(planned: "Reset") -> "Table":
    rows = table("topic", "partition", "from", "to", "read again", "skipped")
    for column in rows.columns[1:]:
        column.justify = "right"
    for move in planned.moves:
        at = "start" if move.at is None else f"{move.at:,}"
        rows.add_row(move.topic, str(move.partition), at, f"{move.to:,}", f"{move.read_again:,}", f"{move.skipped:,}")
    return rows


def _summary(planned: "Reset") -> str:
    again, skipped = (sum(getattr(move, name) for move in planned.moves) for name in ("read_again", "skipped"))
    state = "all state of users and items is dropped" if planned.drops_state else "state stays as it is"
    return f"{planned.app}: {again:,} records at most are read again, {skipped:,} skipped; {state}"


def _print_json(planned: "Reset", *, done: bool) -> None:
    import msgspec

    typer.echo(msgspec.json.encode({**msgspec.to_builtins(planned), "done": done}).decode())
