"""deploy/README.md says what is: alerts, commands, figures, links, and the script that copies a topic."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from kafka import KafkaConsumer, KafkaProducer

from streamer.cli import app
from streamer.engine import position
from streamer.engine.topics import DAY_MS, OUTAGE_MS, create_topics
from streamer.pipeline import item_model, own_items, signals
from streamer.pipeline import rows as users_rows
from streamer.settings import Settings, load
from streamer.tools.doctor import CHECKS, flow
from streamer.tools.kafka import EmbeddedKafka
from streamer.tools.size import size
from tests.test_doctor import find
from tests.test_project import ROOT

TEXT = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
ANCHORS = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in HEADINGS}  # as GitHub makes them


def alerts() -> list[dict[str, object]]:
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def commands() -> set[str]:
    """All that stands in it as `streamer …`, up to what a shell would not hand on."""
    return set(re.findall(r"(?<![\w/.-])streamer ([a-z]+[^`#|&\n;]*)", TEXT))


def option_names(words: list[str]) -> set[str]:
    """The options of a command; fails where there is no such command."""
    command = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]
    return {option for parameter in command.params for option in parameter.opts}


def test_every_alert_has_its_place_where_its_link_points() -> None:
    links = {str(rule["alert"]): rule["annotations"]["runbook_url"] for rule in alerts()}  # type: ignore[index]
    assert links
    for alert, link in links.items():
        assert link == f"deploy/README.md#alert-{alert.lower()}"
        assert f"alert-{alert.lower()}" in ANCHORS
    told = {heading.removeprefix("Alert ") for heading in HEADINGS if heading.startswith("Alert ")}
    assert told == links.keys()


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        path, _, anchor = target.partition("#")
        assert not path or (ROOT / "deploy" / path).exists(), target
        assert path or anchor in ANCHORS, target


def test_messages_of_the_doctor_point_at_places_that_are_there() -> None:
    sources = (ROOT / "streamer" / "tools" / "doctor").glob("*.py")
    named = {
        anchor for path in sources for anchor in re.findall(r"#([a-z-]+) in deploy/README.md", path.read_text("utf-8"))
    }
    assert named
    assert named <= ANCHORS


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_exists_with_its_options(command: str) -> None:
    words = command.split()
    depth = 2 if words[0] in ("topics", "rejected", "config") else 1
    assert set(re.findall(r"--[a-z-]+", command)) <= option_names(words[:depth])


def test_every_check_of_the_doctor_is_explained() -> None:
    rows = re.findall(r"^\| (`[^|]+`) \|", TEXT.partition("| check |")[2].partition("\n\n")[0], re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == {check.name for check in CHECKS}


def test_only_settings_that_exist_are_named() -> None:
    known = {f"STREAMER_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"STREAMER_[A-Z_]*[A-Z]", TEXT)) <= known


def test_the_table_of_layouts_is_what_this_version_writes_and_reads() -> None:
    rows = re.findall(r"^\| ([^|]+) \| layout (\d+) \| ([^|]+) \| ([^|]*)\|", TEXT, re.MULTILINE)
    written = {name: int(layout) for name, layout, _, _ in rows}
    assert written == {
        "users' rows": users_rows.LAYOUT,
        "items' rows": own_items.LAYOUT,
        "items' models": item_model.MODEL_LAYOUT,
        "positions, signals": position.LAYOUT,
    }
    assert position.LAYOUT == signals.LAYOUT
    for _, layout, reads, older in rows:
        assert reads == ", ".join(str(n + 1) for n in range(int(layout)))
        assert older.strip() == (f"stop with 6 at layout {layout}" if layout != "1" else "")


def test_a_backup_is_too_old_when_it_says_so() -> None:
    assert OUTAGE_MS == 7 * DAY_MS
    assert "One that is older than a week or of another cluster is put back, and then not used" in TEXT


def test_the_capacity_table_is_what_the_command_prints() -> None:
    lines = TEXT.partition("| users | events a second |")[2].partition("\n\n")[0].splitlines()[2:]
    assert lines
    for line in lines:
        users, events, *rest = (cell.strip().replace(",", "") for cell in line.strip("|").split("|"))
        of = size(int(users), int(events))
        figures = (of.partitions, of.workers, of.memory_gib, of.disk_gib, of.restore_seconds, of.broker_cores)
        assert rest == [str(figure) for figure in figures]


def test_the_script_that_copies_a_topic_keeps_all_but_the_partitions(
    kafka: EmbeddedKafka, prefix: str, tmp_path: Path
) -> None:
    for version, partitions in (("v1", 2), ("v2", 5)):
        create_topics(load(brokers=kafka.brokers, topic_prefix=f"{prefix}{version}-", partitions=partitions))
    producer = KafkaProducer(bootstrap_servers=kafka.brokers)
    for n in range(20):
        producer.send(f"{prefix}v1-clicks", b"%d" % n, b"u%d" % n, [("h", b"x")], timestamp_ms=1_760_000_000_000 + n)
    producer.close()
    script = (
        re.findall(r"```python copy\n(.*?)```", TEXT, re.DOTALL)[0].replace("\n   ", "\n").replace("10_000", "2_000")
    )
    (tmp_path / "copy_topic.py").write_text(script.removeprefix("   "), encoding="utf-8")
    arguments = [kafka.brokers, f"{prefix}v1-clicks", f"{prefix}v2-clicks"]
    subprocess.run([sys.executable, tmp_path / "copy_topic.py", *arguments], check=True)
    copied = KafkaConsumer(
        arguments[2], bootstrap_servers=kafka.brokers, auto_offset_reset="earliest", consumer_timeout_ms=2000
    )
    records = {record.key: (record.value, record.headers, record.timestamp) for record in copied}
    copied.close()
    assert records == {b"u%d" % n: (b"%d" % n, [("h", b"x")], 1_760_000_000_000 + n) for n in range(20)}
    target = load(brokers=kafka.brokers, topic_prefix=f"{prefix}v2-", partitions=5)
    find(flow.keys(target), "ok", f"{arguments[2]}: 20 sampled")
