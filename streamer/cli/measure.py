"""Commands that measure how good the model is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamer.cli.common import AsJson, load, print_rich, table

if TYPE_CHECKING:
    from rich.table import Table

    from streamer.tools.evaluate import Report

RANKING = ("hr@1", "hr@5", "hr@10", "hr@20", "ndcg@20", "mrr", "coverage", "worth")


def evaluate(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", exists=True, dir_okay=False, readable=True, help="Event lines, plain or .gz."),
    ],
    *,
    shuffle_ties: Annotated[
        bool,
        typer.Option("--shuffle-ties", help="Events of equal times in random order: that of a file may mean nothing."),
    ] = False,
    repeats: Annotated[
        bool, typer.Option("--repeats", help="Test events on items that the user had before, too.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N events.")] = None,
    partitions: Annotated[
        int, typer.Option(min=1, metavar="P", help="So many workers; what they learn arrives a checkpoint later.")
    ] = 1,
    apart: Annotated[
        bool, typer.Option("--apart", help="Each file by itself, from nothing: a table, or a JSON object, for each.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Test, then learn: how well the worker's own pipeline tells what users do next. Needs no Kafka.

    Of every user's event on a new item: where did the item stand among all that the user had not taken? A row per
    expert, for their mix, and for two references: popularity, and plain stochastic factorisation (ISGD). `worth` is
    what the mix's HR@20 loses without an expert.

    Example: streamer evaluate --shuffle-ties purchases.jsonl.gz
    """
    settings = load(partitions=partitions)
    from streamer.tools.evaluate import Options, run

    options = Options(shuffle_ties=shuffle_ties, repeats=repeats, limit=limit)
    for group in [[path] for path in files] if apart else [files]:
        found = run(settings, group, options)
        if as_json:
            import msgspec

            typer.echo(msgspec.json.encode(found).decode())
        else:
            _print(group, found)


def rank_speed(
    *,
    items: Annotated[
        list[int] | None, typer.Option(min=100, help="Size of the catalogue; several times for more.")
    ] = None,
    users: Annotated[int, typer.Option(min=1, help="Made-up users to rank for.")] = 200,
    as_json: AsJson = False,
) -> None:
    """How long a ranking takes, on one core, over made-up catalogues: 20 of 20,000 items and of a million.

    And what part of it is gone without some of the experts.

    Example: streamer rank-speed --items 100000
    """
    from streamer.tools.evaluate.speed import measure

    found = [measure(size, users) for size in items or (20_000, 1_000_000)]
    if as_json:
        import msgspec

        typer.echo(msgspec.json.encode(found).decode())
        return
    parts = [f"{name}, ms" for name in found[0].ms_of]
    rows = table("items", "candidates", "rank, ms", "99 of 100, ms", *parts, "board, s", "transitions, MiB")
    for one in found:
        times = (one.ms_rank, one.ms_rank_p99, *one.ms_of.values(), one.seconds_board)
        rows.add_row(f"{one.items:,}", f"{one.candidates:,}", *(f"{each:.2f}" for each in times), f"{one.link_mb:,}")
    print_rich(rows)


def _print(files: list[Path], found: "Report") -> None:
    from rich.text import Text

    print_rich(
        Text(f"{', '.join(path.name for path in files)}: {found.events:,} events, {found.tested:,} tested"),
        _rankings(found),
        _interests(found),
        Text(_recovery(found.recovery)),
        Text(f"{found.us_learn:g} µs an event to learn, {found.us_rank:g} µs a user to rank, one at a time"),
    )


def _rankings(found: "Report") -> "Table":
    rows = table("ranking", *RANKING)
    groups = (
        {"mix": found.mix, "mix, new users": found.new_users, "mix, old users": found.old_users},
        found.experts,
        {f"reference: {name}": figures for name, figures in found.references.items()},
    )
    for group in groups:
        for name, figures in group.items():
            rows.add_row(name, *(f"{figures[column]:.4f}" if column in figures else "" for column in RANKING))
    return rows


def _recovery(found: dict[str, float]) -> str:
    if "median" not in found:
        return "nobody took enough items for a test of switching interests"
    return (
        f"a profile follows a switch of interest after {found['median']:g} events (median of {found['users']} made-up"
        f" users; {found['mean']:.1f} in the mean)"
    )


def _interests(found: "Report") -> "Table":
    rows = table("tags of the next event", "NLL", "hr@5")
    figures = found.interests
    for name, own in (("interests", figures), ("global", figures["global"]), ("lifetime", figures["lifetime"])):
        rows.add_row(name, f"{own['nll']:.3f}", f"{own['hr@5']:.4f}")
    return rows
