"""Commands for those who run it: topics and settings."""

from typing import TYPE_CHECKING, Any

import typer

from streamer.cli.common import (
    AsJson,
    Brokers,
    DataDir,
    HttpPort,
    Partitions,
    TopicPrefix,
    load,
    print_rich,
    table,
    wide,
)

if TYPE_CHECKING:
    from rich.table import Table

    from streamer.engine.topics import Difference, Severity
    from streamer.settings import Settings

COLOURS: "dict[Severity, str]" = {"error": "red", "warning": "yellow"}


def create(
    *,
    brokers: Brokers = None,
    topic_prefix: TopicPrefix = None,
    partitions: Partitions = None,
    as_json: AsJson = False,
) -> None:
    """Create the topics that are missing, with the settings that they need; touch nothing that is there.

    Waits for the broker as long as STREAMER_BROKER_WAIT_MS says. May run at the same time as others and again.

    Example: streamer topics create --partitions 12
    """
    settings = load(brokers=brokers, topic_prefix=topic_prefix, partitions=partitions)
    from streamer.engine.kafka_clients import wait_for_broker
    from streamer.engine.topics import create_topics

    wait_for_broker(settings)
    created = create_topics(settings)
    if as_json:
        _print_json({"created": created})
    else:
        typer.echo("\n".join(f"created {name}" for name in created) or "all topics are there")


def check(
    *,
    brokers: Brokers = None,
    topic_prefix: TopicPrefix = None,
    partitions: Partitions = None,
    as_json: AsJson = False,
) -> None:
    """Say where the topics are not as they have to be, and what to do about it.

    Errors keep a worker from starting and exit 4; warnings do not.

    Example: streamer topics check --json
    """
    settings = load(brokers=brokers, topic_prefix=topic_prefix, partitions=partitions)
    from streamer.engine.topics import check_topics
    from streamer.errors import TopicsError

    differences = check_topics(settings)
    if as_json:
        _print_json(differences)
    else:
        _print_differences(settings, differences)
    if any(difference.severity == "error" for difference in differences):
        raise typer.Exit(TopicsError.exit_code)


def show(
    *,
    brokers: Brokers = None,
    topic_prefix: TopicPrefix = None,
    data_dir: DataDir = None,
    http_port: HttpPort = None,
    partitions: Partitions = None,
    as_json: AsJson = False,
) -> None:
    """Every setting: its value, where that comes from, its unit, and why its default is what it is. Secrets are hidden.

    Example: STREAMER_CHECKPOINT_MS=1000 streamer config show
    """
    options = {
        "brokers": brokers,
        "topic_prefix": topic_prefix,
        "data_dir": data_dir,
        "http_port": http_port,
        "partitions": partitions,
    }
    rows = _rows(load(**options), {name for name, value in options.items() if value is not None})
    if as_json:
        _print_json(rows)
        return
    print_rich(_settings_table(rows))


def _settings_table(rows: list[dict[str, Any]]) -> "Table":
    from rich.text import Text

    columns = ["variable", "value", "unit", "origin"] + (["why"] if wide() else [])
    settings_table = table(*columns)
    settings_table.columns[0].no_wrap = True
    for row in rows:
        cells = (Text("" if row[column] is None else str(row[column])) for column in columns)
        settings_table.add_row(*cells, style=None if row["origin"] == "default" else "bold")
    return settings_table


def _rows(settings: "Settings", options: set[str]) -> list[dict[str, Any]]:
    from streamer.settings import units

    values = settings.model_dump(mode="json")  # pydantic turns secrets into asterisks
    return [
        {
            "variable": f"STREAMER_{name.upper()}",
            "value": values[name],
            "unit": units()[name],
            "origin": _origin(settings, name, options),
            "why": field.description,
        }
        for name, field in type(settings).model_fields.items()
    ]


def _origin(settings: "Settings", name: str, options: set[str]) -> str:
    if name in options:
        return "option"
    return "environment" if name in settings.model_fields_set else "default"


def _print_differences(settings: "Settings", differences: "list[Difference]") -> None:
    from rich.text import Text

    from streamer.engine.topics import describe

    if not differences:
        typer.echo(f"all topics on {settings.brokers} are as they have to be")
        return
    for severity, colour in COLOURS.items():
        for line in describe(differences, severity):
            print_rich(Text.assemble((f"{severity}  ", colour), line))


def _print_json(value: Any) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(value).decode())
