"""Commands about rejected records: what was turned away and why, and putting it back after a fix."""

import asyncio
import heapq
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamer.cli.common import AsJson, Brokers, Partitions, TopicPrefix, confirm, load, print_rich, table, unix_ms

if TYPE_CHECKING:
    from rich.table import Table

    from streamer.settings import Settings
    from streamer.tools.rejected import Rejection, Wanted
    from streamer.tools.rejected_replay import Replay

SHOWN_SKIPPED = 20  # lines that say what stays where it is; --json has all

Reasons = Annotated[
    list[str] | None, typer.Option("--reason", metavar="NAME", help="Only of this reason (may be repeated).")
]
Topics = Annotated[
    list[str] | None, typer.Option("--topic", metavar="NAME", help="Only from this topic: clicks, … (may be repeated).")
]
Key = Annotated[
    str | None, typer.Option("--key", metavar="ID", help="Only records with this key, or with this user_id in them.")
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Only what was rejected from then on: 2026-01-31T12:00:00Z, or ms."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only what was rejected before then.")]


def show(
    *,
    reason: Reasons = None,
    topic: Topics = None,
    key: Key = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="The newest N.")] = 100,
    brokers: Brokers = None,
    topic_prefix: TopicPrefix = None,
    partitions: Partitions = None,
    as_json: AsJson = False,
) -> None:
    """What was rejected and why, oldest first, and what of it was put back.

    With --json every line is one record with its value.

    Example: streamer rejected list --reason too_large --since 2026-01-31T12:00:00Z
    """
    settings = load(brokers=brokers, topic_prefix=topic_prefix, partitions=partitions)
    wanted = _wanted(reason, topic, key, since, until)
    newest, counts = asyncio.run(_newest(settings, wanted, limit))
    if as_json:
        for found in newest:
            _print_json(_as_json(*found))
        return
    if newest:
        print_rich(_table(newest))
    typer.echo(_counted(counts, len(newest)))


def replay(
    *,
    reason: Reasons = None,
    topic: Topics = None,
    key: Key = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most N, the first of them.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    brokers: Brokers = None,
    topic_prefix: TopicPrefix = None,
    partitions: Partitions = None,
    as_json: AsJson = False,
) -> None:
    """Put rejected records back into their topics, after a fix. Once each, however often this is run.

    Run it with the workers' settings: what they would reject again stays where it is, and so does a record of which
    `rejected` has no value. Each is sent with its key, value and headers, and says in `replayed_from` where it was.

    Exit code 1: something that was asked for stays where it is.

    Example: STREAMER_MAX_EVENT_BYTES=131072 streamer rejected replay --reason too_large --dry-run
    """
    settings = load(brokers=brokers, topic_prefix=topic_prefix, partitions=partitions)
    from streamer.tools.rejected_replay import carry_out, plan

    wanted = _wanted(reason, topic, key, since, until)
    done = plan(settings, wanted, limit)
    doing = not dry_run and done.replayed > 0
    if not as_json:
        _print_replay(done)
    if doing:
        confirm(yes=yes)
        done = carry_out(settings, wanted, limit)
        if not as_json:
            typer.echo(f"done: {done.replayed:,} records were put back")
    if as_json:
        _print_json(done)
    if done.skipped:
        raise typer.Exit(1)


def _wanted(
    reasons: list[str] | None, topics: list[str] | None, key: str | None, since: str | None, until: str | None
) -> "Wanted":
    """The filter. Raises SettingsError for a reason, topic or time that is none."""
    from streamer.tools.rejected import Wanted, check

    wanted = Wanted(
        reasons=tuple(reasons or ()),
        topics=tuple(topics or ()),
        key=key,
        since_ms=None if since is None else unix_ms("--since", since),
        until_ms=None if until is None else unix_ms("--until", until),
    )
    check(wanted)
    return wanted


async def _newest(
    settings: "Settings", wanted: "Wanted", limit: int
) -> "tuple[list[tuple[Rejection, bool]], Counter[tuple[str, str]]]":
    """The newest `limit` in the order of time, and counts of all by topic and reason."""
    from streamer.tools.rejected import reader, rejections

    counts: Counter[tuple[str, str]] = Counter()
    newest: list[tuple[int, int, tuple[Rejection, bool]]] = []
    async with reader(settings) as consumer:
        async for found in rejections(settings, consumer, wanted):
            counts[found[0].source.topic, found[0].reason] += 1
            add = heapq.heappush if len(newest) < limit else heapq.heappushpop
            add(newest, (found[0].at_ms, counts.total(), found))
    return [found for *_, found in sorted(newest)], counts


def _table(found: "list[tuple[Rejection, bool]]") -> "Table":
    from rich.text import Text

    from streamer.cli.render import plain

    rows = table("rejected at", "came from", "key", "reason", "detail", "put back")
    for rejection, replayed in found:
        at = datetime.fromtimestamp(rejection.at_ms / 1000).astimezone().isoformat(" ", "seconds")
        key = "" if rejection.key is None else rejection.key.decode(errors="backslashreplace")
        cells = (at, str(rejection.source), key, rejection.reason, rejection.detail, "yes" if replayed else "")
        rows.add_row(*(Text(plain(cell)) for cell in cells))
    return rows


def _counted(counts: "Counter[tuple[str, str]]", shown: int) -> str:
    if not counts:
        return "nothing that was asked for was rejected"
    parts = ", ".join(f"{count:,} {reason} in {topic}" for (topic, reason), count in counts.most_common())
    more = f" (the newest {shown:,} are shown: --limit)" if shown < counts.total() else ""
    return f"{counts.total():,} rejected: {parts}{more}"


def _as_json(rejection: "Rejection", replayed: bool) -> dict[str, Any]:  # noqa: FBT001 - one of a pair
    import msgspec

    return {
        **msgspec.to_builtins(rejection),
        "place": str(rejection.place),
        "source": str(rejection.source),
        "key": _text(rejection.key),
        "value": _text(rejection.value),
        "headers": [[name, _text(value)] for name, value in rejection.headers],
        "replayed": replayed,
    }


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace")


def _print_replay(planned: "Replay") -> None:
    from streamer.cli.render import plain

    for each in planned.skipped[:SHOWN_SKIPPED]:
        typer.echo(f"stays: {each.place} (from {each.source}): {plain(each.why)}", err=True)
    if len(planned.skipped) > SHOWN_SKIPPED:
        typer.echo(f"stays: {len(planned.skipped) - SHOWN_SKIPPED:,} more, --json lists them", err=True)
    typer.echo(
        f"{planned.matched:,} rejected records: {planned.replayed:,} to put back, {planned.before:,} were put back"
        f" before, {len(planned.skipped):,} stay where they are"
    )


def _print_json(value: Any) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(value).decode())
