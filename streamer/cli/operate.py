"""Commands for those who keep it running: what is wrong, and how large it has to be."""

from typing import TYPE_CHECKING, Annotated

import typer

from streamer.cli.common import AsJson, Brokers, DataDir, HttpPort, Partitions, TopicPrefix, print_rich, print_summary

if TYPE_CHECKING:
    from rich.text import Text

    from streamer.tools.doctor import Finding

COLOURS = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "red"}


def doctor(
    *,
    quiet: Annotated[bool, typer.Option("--quiet", help="Leave out what is well.")] = False,
    brokers: Brokers = None,
    topic_prefix: TopicPrefix = None,
    partitions: Partitions = None,
    data_dir: DataDir = None,
    http_port: HttpPort = None,
    as_json: AsJson = False,
) -> None:
    """Look at broker, topics, keys, lag, clock, disk, memory, certificates and settings: what is wrong, what to do.

    Run it where the worker runs, as its user and with its settings; it does no harm to one that runs, and changes
    nothing. Exits 0 when nothing needs anybody, 1 with warnings, 2 with errors.

    Example: streamer doctor --quiet
    """
    from streamer import logs, settings
    from streamer.tools.doctor import examine, exit_code

    options = {"brokers": brokers, "topic_prefix": topic_prefix, "partitions": partitions}
    loaded = settings.load(**options, data_dir=data_dir, http_port=http_port)
    logs.configure(loaded)
    found: list[Finding] = []
    for finding in examine(loaded):
        found.append(finding)
        if not as_json and not (quiet and finding.severity == "ok"):
            print_rich(*_lines(finding))
    if as_json:
        import msgspec

        typer.echo(msgspec.json.encode(found).decode())
    else:
        typer.echo(_summary(found))
    raise typer.Exit(exit_code(found))


def size(
    *,
    users: Annotated[int, typer.Option(min=1, help="All users whose profiles are kept.")],
    events_per_second: Annotated[int, typer.Option(min=1, help="At the busiest hour.")],
    cached: Annotated[
        float, typer.Option(min=0, max=1, help="Share of users who come again while they are in memory.")
    ] = 0.1,
    as_json: AsJson = False,
) -> None:
    """How many workers, partitions, memory and disk: a model over the measurements in deploy/BENCHMARKS.md.

    Bytes are of one worker; a catalogue adds 1 KB an item to each. Workers are 60 % busy at most.

    Example: streamer size --users 10000000 --events-per-second 20000
    """
    from streamer.tools.size import size as of

    print_summary(of(users, events_per_second, cached), as_json=as_json)


def _lines(finding: "Finding") -> "list[Text]":
    from rich.text import Text

    head = Text.assemble((f"{finding.severity:8}", COLOURS[finding.severity]), f"{finding.check:12}", finding.found)
    more = [
        Text(f"{'':20}{name}: {text}", "dim") for name, text in (("means", finding.means), ("do", finding.do)) if text
    ]
    return [head, *more]


def _summary(found: "list[Finding]") -> str:
    counts = {severity: sum(each.severity == severity for each in found) for severity in COLOURS}
    return f"{counts['ok']} well, {counts['note']} notes, {counts['warning']} warnings, {counts['error']} errors"
