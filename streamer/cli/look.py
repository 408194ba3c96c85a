"""Commands that show profiles: one user's now, and all as they change."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from streamer.cli.common import AsJson, Brokers, HttpPort, TopicPrefix, load, print_rich

if TYPE_CHECKING:
    from streamer.settings import Settings
    from streamer.tools.profiles import Published


def profile(
    user: Annotated[str, typer.Argument(metavar="USER", help="The user_id of the events.")],
    *,
    http_port: HttpPort = None,
    as_json: AsJson = False,
) -> None:
    """One user's profile, as a worker has it now.

    Any worker answers for any user.

    Example: streamer profile u42
    """
    settings = load(http_port=http_port)
    from streamer.cli.render import profile_parts
    from streamer.tools.profiles import decode_profile, fetch_profile

    body = fetch_profile(settings, user)
    if as_json:
        typer.echo(body.decode())
    else:
        print_rich(*profile_parts(decode_profile(body), time.time_ns() // 1_000_000))


def watch(
    user: Annotated[str | None, typer.Argument(metavar="[USER]", help="Only this user's changes.")] = None,
    *,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Start with what the topic holds instead of from now.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after N changes.")] = None,
    brokers: Brokers = None,
    topic_prefix: TopicPrefix = None,
    as_json: AsJson = False,
) -> None:
    """Follow the profile topic: a line for every profile that is published, with what changed.

    Ctrl-C ends it. With --json every line is the published value; of an erased user, the id and "erased".

    Example: streamer watch --json --limit 10
    """
    settings = load(brokers=brokers, topic_prefix=topic_prefix)
    try:
        _follow(settings, user, from_beginning=from_beginning, limit=limit, as_json=as_json)
    except KeyboardInterrupt:
        raise typer.Exit from None


def dashboard(
    *,
    prometheus: Annotated[
        str, typer.Option("--prometheus", metavar="URL", help="The Prometheus that scrapes the workers.")
    ] = "http://localhost:9090",
    window: Annotated[
        str, typer.Option("--window", metavar="DURATION", help="What rates look back: four scrapes at least.")
    ] = "1m",
    span: Annotated[str, typer.Option("--span", metavar="DURATION", help="How much time totals are of.")] = "1h",
    as_json: AsJson = False,
) -> None:
    """Every panel of the Grafana dashboard with its queries and what they say now, without Grafana.

    Exits 1 when a query has no series: a metric is missing, or no worker is scraped under the job `streamer`.

    Example: streamer dashboard --prometheus http://localhost:9090
    """
    load()
    import msgspec

    from streamer.tools.dashboard.values import read, told

    readings = list(read(prometheus, window, span))
    if as_json:
        typer.echo(msgspec.json.encode(readings).decode())
    else:
        typer.echo("\n".join(told(readings)))
    if not all(reading.values for reading in readings):
        raise typer.Exit(1)


def _follow(settings: "Settings", user: str | None, *, from_beginning: bool, limit: int | None, as_json: bool) -> None:
    from itertools import islice

    from streamer.tools.profiles import follow_profiles

    with follow_profiles(settings, user, from_beginning=from_beginning) as changes:
        topic = settings.topic("profiles")
        typer.echo(f"watching {topic} on {settings.brokers}, Ctrl-C stops", err=True)
        for published in islice(changes, limit):
            _print_change(published, as_json=as_json)


def _print_change(published: "Published", *, as_json: bool) -> None:
    import msgspec

    from streamer.cli.render import change_line

    if not as_json:
        print_rich(change_line(published))
    elif published.value is None:
        typer.echo(msgspec.json.encode({"user_id": published.user_id, "erased": True}).decode())
    else:
        typer.echo(published.value.decode())
