"""Commands that put events into the topics."""

from pathlib import Path
from typing import Annotated

import typer

from streamer.cli.common import AsJson, Brokers, TopicPrefix, load, print_summary


def simulate(
    *,
    users: Annotated[int, typer.Option(min=1, help="How many people.")] = 500,
    items: Annotated[int, typer.Option(min=1, help="How many items in their catalogue.")] = 1000,
    rate: Annotated[float, typer.Option(help="Events a second, of all people together.")] = 50.0,
    seed: Annotated[int, typer.Option(help="The same seed makes the same people.")] = 1,
    seconds: Annotated[
        float | None, typer.Option(help="How much time to simulate; default: until Ctrl-C (a file needs it).")
    ] = None,
    to_file: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write event lines (.gz compresses) instead of sending them.")
    ] = None,
    truth_file: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Where the true interests go; default: beside the file, else nowhere."),
    ] = None,
    brokers: Brokers = None,
    topic_prefix: TopicPrefix = None,
    as_json: AsJson = False,
) -> None:
    """Made-up people with known interests that drift: their clicks and purchases, as they happen.

    Example: streamer simulate --users 10000 --rate 500

    Example: streamer simulate --seconds 86400 --to-file day.jsonl.gz
    """
    settings = load(brokers=brokers, topic_prefix=topic_prefix)
    from streamer.tools.simulate import run

    summary = run(
        settings,
        users=users,
        items=items,
        rate=rate,
        seed=seed,
        seconds=seconds,
        to_file=to_file,
        truth_file=truth_file,
    )
    print_summary(summary, as_json=as_json)


def replay(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", exists=True, dir_okay=False, readable=True, help="Event lines, plain or .gz."),
    ],
    *,
    rate: Annotated[float | None, typer.Option(help="Events a second; default: as fast as it goes.")] = None,
    shift_to_now: Annotated[
        bool, typer.Option("--shift-to-now", help="Move all times so that the last event is now.")
    ] = False,
    brokers: Brokers = None,
    topic_prefix: TopicPrefix = None,
    as_json: AsJson = False,
) -> None:
    """Event lines from files into the topics, in their order.

    A line is the topic's value plus "type" (click, purchase, item). A bad line is named by its number and skipped.

    Example: streamer replay --shift-to-now purchases.jsonl.gz
    """
    settings = load(brokers=brokers, topic_prefix=topic_prefix)
    from streamer.tools.replay import run

    print_summary(run(settings, files=files, rate=rate, shift_to_now=shift_to_now), as_json=as_json)
