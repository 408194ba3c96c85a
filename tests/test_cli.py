"""The command line as people and scripts meet it: what it prints, where, and how it ends."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import structlog
from kafka import KafkaProducer

from streamer import __version__, logs
from streamer.cli import COMMANDS, GROUPS, main
from streamer.cli.render import age, bar, change_line, profile_parts
from streamer.engine.kafka_clients import kafka_python_options
from streamer.engine.topics import create_topics
from streamer.profile import Activity, Change, Interest, ItemEvent, Profile
from streamer.settings import Settings, load
from streamer.tools.kafka import EmbeddedKafka
from streamer.tools.profiles import Published
from tests.serving_world import Shop, make_app
from tests.test_kafka_clients import free_ports

NOW = 1_767_225_600_000
HIDDEN = "hush"
PATHS = [(name,) for _, name, _ in COMMANDS] + [(group, verb) for group, _, verbs in GROUPS for verb in verbs]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings from outside, and logging as it was before."""
    for name in list(os.environ):
        if name.startswith("STREAMER_"):
            monkeypatch.delenv(name)
    root, handlers, level = logging.root, list(logging.root.handlers), logging.root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logs._for_machines = False
    structlog.reset_defaults()


class Ended(msgspec.Struct):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def streamer(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run a command in this process."""

    def run(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        printed = capsys.readouterr()
        return Ended(int(ended.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture
def settings(kafka: EmbeddedKafka, prefix: str) -> Settings:
    settings = load(brokers=kafka.brokers, topic_prefix=prefix, partitions=2)
    create_topics(settings)
    return settings


def start(*arguments: str) -> subprocess.Popen[str]:
    """A command as a process of its own."""
    command = [sys.executable, "-m", "streamer.cli", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def a_profile(user_id: str = "u1", version: int = 3, **fields: Any) -> Profile:
    event = ItemEvent("tent-1", NOW - 3_600_000, "purchase")
    values = {
        "as_of": NOW - 60_000,
        "published_at": NOW,
        "interests": (Interest("camping", 5.1, 0.31, 0.5, 2.3, 4.2, NOW, (event,)),),
        "vector": "",
        "vector_dim": 0,
        "model": "factors/1",
        "activity": Activity(12, 2, {"EUR": 99.5}, NOW - 86_400_000, NOW, (0,) * 24),
        "recent_items": (event,),
        "changed": (Change("interest_added", "camping", None, 0.31), Change("interest_dropped", "tea")),
        "cause": "e1",
        **fields,
    }
    return Profile(user_id, version, **values)


def test_help_answers_without_importing_what_is_heavy() -> None:
    heavy = ["numba", "numpy", "faust", "aiokafka", "kafka", "pydantic", "structlog", "rich.progress", "msgspec"]
    script = f"import sys, streamer.cli; print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_command_tells_what_it_does_with_an_example_and_exit_codes(
    path: tuple[str, ...], streamer: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    ended = streamer(*path, "--help")
    assert ended.code == 0
    assert "streamer " + " ".join(path) in ended.out.partition("Example: ")[2]
    assert "Exit codes: 0 done" in ended.out


def test_commands_of_the_contract_are_all_there() -> None:
    wanted = {"demo", "worker", "kafka", "simulate", "replay", "profile", "watch", "bench"}
    wanted |= {"topics create", "topics check", "config show"}
    assert wanted <= {" ".join(path) for path in PATHS}


def test_version(streamer: Callable[..., Ended]) -> None:
    assert streamer("--version").out == f"streamer {__version__}\n"


@pytest.mark.parametrize("arguments", [("nope",), ("replay", "/no/such/file"), ("watch", "--limit", "0")])
def test_wrong_arguments_exit_2(arguments: tuple[str, ...], streamer: Callable[..., Ended]) -> None:
    ended = streamer(*arguments)
    assert (ended.code, ended.out) == (2, "")


def test_an_error_is_one_line_that_says_what_to_do(streamer: Callable[..., Ended]) -> None:
    ended = streamer("topics", "check", "--brokers", f"127.0.0.1:{free_ports(1)[0]}")
    assert (ended.code, ended.out) == (3, "")
    (line,) = ended.err.splitlines()
    assert line.startswith("error: no broker at 127.0.0.1:")
    assert "set STREAMER_BROKERS" in line


def test_an_error_is_a_json_line_where_logs_are(
    streamer: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMER_LOG_FORMAT", "json")
    ended = streamer("topics", "check", "--brokers", f"127.0.0.1:{free_ports(1)[0]}")
    assert json.loads(ended.err)["exit_code"] == ended.code == 3


def test_wrong_settings_exit_2_with_every_mistake(
    streamer: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMER_PARTITIONS", "many")
    monkeypatch.setenv("STREAMER_SEEN_IDS", "0")
    ended = streamer("config", "show")
    assert ended.code == 2
    assert "STREAMER_PARTITIONS='many'" in ended.err
    assert "STREAMER_SEEN_IDS='0'" in ended.err


def test_an_unknown_variable_is_named_with_the_one_that_was_meant(
    streamer: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMER_PARTITION", "6")
    ended = streamer("config", "show", "--json")
    assert ended.code == 0
    assert "STREAMER_PARTITION is not a setting" in ended.err
    assert "did you mean STREAMER_PARTITIONS?" in ended.err


def test_config_shows_where_each_value_comes_from(
    streamer: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMER_PARTITIONS", "6")
    rows = {row["variable"]: row for row in streamer("config", "show", "--brokers", "kafka:9092", "--json").json}
    assert set(rows) == {f"STREAMER_{name.upper()}" for name in Settings.model_fields}
    shown = {name: (rows[name]["value"], rows[name]["origin"]) for name in rows}
    assert shown["STREAMER_PARTITIONS"] == (6, "environment")
    assert shown["STREAMER_BROKERS"] == ("kafka:9092", "option")
    assert shown["STREAMER_CHECKPOINT_MS"] == (500, "default")
    assert rows["STREAMER_CHECKPOINT_MS"]["unit"] == "ms"


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_config_hides_secrets(
    form: tuple[str, ...], streamer: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STREAMER_SASL_PASSWORD", "STREAMER_HTTP_TOKEN"):
        monkeypatch.setenv(name, HIDDEN)
    ended = streamer("config", "show", *form)
    assert "STREAMER_SASL_PASSWORD" in ended.out
    assert HIDDEN not in ended.out + ended.err


@pytest.mark.parametrize(("columns", "why"), [("80", False), ("160", True)])
def test_config_names_no_variable_in_part_however_narrow_the_terminal(
    columns: str, why: bool, streamer: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", columns)
    out = streamer("config", "show").out
    assert all(f"STREAMER_{name.upper()}" in out for name in Settings.model_fields)
    assert ("Kafka's own default port" in out) is why


def test_topics_are_created_and_then_as_they_have_to_be(
    kafka: EmbeddedKafka, prefix: str, streamer: Callable[..., Ended]
) -> None:
    where = ("--brokers", kafka.brokers, "--topic-prefix", prefix, "--partitions", "2")
    before = streamer("topics", "check", *where)
    assert before.code == 4
    assert "run `streamer topics create`" in before.out
    assert f"{prefix}clicks" in streamer("topics", "create", *where, "--json").json["created"]
    assert streamer("topics", "create", *where).out == "all topics are there\n"
    after = streamer("topics", "check", *where)
    assert (after.code, after.out) == (0, f"all topics on {kafka.brokers} are as they have to be\n")


def test_differences_of_topics_are_json_for_programs(settings: Settings, streamer: Callable[..., Ended]) -> None:
    where = ("--brokers", settings.brokers, "--topic-prefix", settings.topic_prefix)
    ended = streamer("topics", "check", *where, "--partitions", "3", "--json")
    assert ended.code == 4
    assert {(each["what"], each["have"], each["want"]) for each in ended.json} == {("partitions", "2", "3")}


def test_ctrl_c_ends_a_command_quietly_with_130() -> None:
    with start("topics", "create", "--brokers", f"127.0.0.1:{free_ports(1)[0]}") as process:
        assert process.stderr is not None
        assert "no broker yet" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err


async def test_a_profile_is_shown_with_its_interests(streamer: Callable[..., Ended]) -> None:
    shop, settings = Shop(people=2), load(http_port=free_ports(1)[0])
    user = shop.people[0].user_id
    async with make_app(shop, settings):
        port = ("--http-port", str(settings.http_port))
        raw = await asyncio.to_thread(streamer, "profile", user, *port, "--json")
        shown = await asyncio.to_thread(streamer, "profile", user, *port)
    assert raw.json["user_id"] == user
    assert user in shown.out
    assert all(interest["tag"] in shown.out for interest in raw.json["interests"])


async def test_an_unknown_user_is_an_error_with_the_workers_words(streamer: Callable[..., Ended]) -> None:
    shop, settings = Shop(people=1), load(http_port=free_ports(1)[0])
    async with make_app(shop, settings):
        ended = await asyncio.to_thread(streamer, "profile", "no/body ü", "--http-port", str(settings.http_port))
    assert (ended.code, ended.out) == (1, "")
    assert "404: No event of user 'no/body ü' has been seen" in ended.err


async def test_a_worker_that_is_not_ready_is_told_apart(streamer: Callable[..., Ended]) -> None:
    from streamer.serving.view import NotReady

    shop, settings = Shop(people=1), load(http_port=free_ports(1)[0])
    shop.fault = NotReady("partition 3 is being restored")
    async with make_app(shop, settings):
        ended = await asyncio.to_thread(streamer, "profile", "u", "--http-port", str(settings.http_port))
    assert ended.code == 1
    assert "try again in a few seconds" in ended.err


async def test_the_token_is_sent_and_its_absence_explained(
    streamer: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, settings = Shop(people=1), load(http_port=free_ports(1)[0], http_token=HIDDEN)
    ask = ("profile", shop.people[0].user_id, "--http-port", str(settings.http_port))
    async with make_app(shop, settings):
        without = await asyncio.to_thread(streamer, *ask)
        monkeypatch.setenv("STREAMER_HTTP_TOKEN", HIDDEN)
        given = await asyncio.to_thread(streamer, *ask)
    assert without.code == 1
    assert "STREAMER_HTTP_TOKEN" in without.err
    assert given.code == 0


def test_no_worker_is_an_error_that_says_how_to_start_one(streamer: Callable[..., Ended]) -> None:
    ended = streamer("profile", "u1", "--http-port", str(free_ports(1)[0]))
    assert ended.code == 1
    assert "start one with `streamer worker`" in ended.err


def publish(settings: Settings, *values: tuple[str, Profile | bytes | None]) -> None:
    producer = KafkaProducer(**kafka_python_options(settings))
    try:
        for user_id, value in values:
            raw = msgspec.json.encode(value) if isinstance(value, Profile) else value
            producer.send(settings.topic("profiles"), key=user_id.encode(), value=raw).get(timeout=30)
    finally:
        producer.close()


def where(settings: Settings) -> tuple[str, ...]:
    return ("--brokers", settings.brokers, "--topic-prefix", settings.topic_prefix)


def test_watch_follows_from_now_and_stops_at_its_limit(settings: Settings) -> None:
    publish(settings, ("early", a_profile("early")))
    with start("watch", "--json", "--limit", "1", *where(settings)) as process:
        assert process.stderr is not None
        assert "watching" in process.stderr.readline()
        publish(settings, ("late", a_profile("late")))
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out)["user_id"] == "late"


def test_watch_from_the_beginning_prints_the_published_values(
    settings: Settings, streamer: Callable[..., Ended]
) -> None:
    publish(settings, ("u1", a_profile()), ("u1", None))
    ended = streamer("watch", "--from-beginning", "--limit", "2", "--json", *where(settings))
    first, second = map(json.loads, ended.out.splitlines())
    assert first == json.loads(msgspec.json.encode(a_profile()))
    assert second == {"user_id": "u1", "erased": True}


def test_watch_of_one_user_shows_no_other(settings: Settings, streamer: Callable[..., Ended]) -> None:
    publish(settings, *[(f"u{n}", a_profile(f"u{n}")) for n in range(8)], ("u3", a_profile("u3", 4)))
    ended = streamer("watch", "u3", "--from-beginning", "--limit", "2", "--json", *where(settings))
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert [(line["user_id"], line["version"]) for line in lines] == [("u3", 3), ("u3", 4)]


def test_watch_skips_what_is_not_a_profile(settings: Settings, streamer: Callable[..., Ended]) -> None:
    publish(settings, ("u1", b"{nonsense"), ("u1", a_profile()))
    ended = streamer("watch", "--from-beginning", "--limit", "1", *where(settings))
    assert "+camping 31%" in ended.out
    assert "not a profile, skipped" in ended.err


def test_watch_shows_nothing_of_a_transaction_that_was_aborted(
    settings: Settings, streamer: Callable[..., Ended]
) -> None:
    producer = KafkaProducer(**kafka_python_options(settings), transactional_id=settings.topic_prefix)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(settings.topic("profiles"), key=b"u1", value=msgspec.json.encode(a_profile("u1", 1))).get(timeout=30)
    producer.abort_transaction()
    producer.close()
    publish(settings, ("u1", a_profile("u1", 2)))
    ended = streamer("watch", "--from-beginning", "--limit", "1", "--json", *where(settings))
    assert ended.json["version"] == 2


def test_ctrl_c_ends_watch_with_0(settings: Settings) -> None:
    with start("watch", *where(settings)) as process:
        assert process.stderr is not None
        assert "watching" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


def test_watch_without_its_topic_exits_4(kafka: EmbeddedKafka, prefix: str, streamer: Callable[..., Ended]) -> None:
    ended = streamer("watch", "--brokers", kafka.brokers, "--topic-prefix", prefix)
    assert ended.code == 4
    assert "streamer topics create" in ended.err


def test_a_change_is_told_in_one_line() -> None:
    line = change_line(Published("u1", NOW, a_profile(), b"")).plain
    assert "u1  v3  +camping 31%, −tea   camping 31%" in line
    assert "\n" not in line


def test_an_erased_user_is_told_in_one_line() -> None:
    assert change_line(Published("u1", NOW, None, None)).plain.endswith("u1  erased")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Change("interest_shifted", "tea", 0.031, 0.12), "tea 3.1% → 12%"),
        (Change("vector_moved", None, None, 0.8), "taste moved"),
        (Change("first_profile"), "first profile"),
    ],
)
def test_every_kind_of_change_has_words(change: Change, words: str) -> None:
    assert words in change_line(Published("u1", NOW, a_profile(changed=(change,)), b"")).plain


def test_names_from_events_reach_no_terminal_as_codes_or_markup() -> None:
    nasty = "[red]\x1b[31m\x07tag"
    interest = Interest(nasty, 1.0, 0.5, 0.0, 1.0, 1.0, NOW)
    line = change_line(Published(nasty, NOW, a_profile(interests=(interest,)), b"")).plain
    assert "[red]�[31m�tag" in line
    assert "\x1b" not in line


def test_a_profile_without_interests_says_so() -> None:
    parts = list(profile_parts(a_profile(interests=(), changed=()), NOW))
    assert "no interests yet" in [str(part) for part in parts]


def test_activity_and_recent_items_are_told_with_their_age() -> None:
    *_, activity, recent = map(str, profile_parts(a_profile(), NOW))
    assert activity == "activity 12 clicks, 2 purchases of 99.50 EUR, first seen 1 d ago"
    assert recent == "recent   tent-1 (purchase, 1 h ago)"


@pytest.mark.parametrize(
    ("passed_ms", "words"),
    [(-5, "just now"), (999, "just now"), (60_000, "1 min ago"), (7_199_999, "1 h ago"), (172_800_000, "2 d ago")],
)
def test_ages_are_in_the_largest_unit(passed_ms: int, words: str) -> None:
    assert age(NOW - passed_ms, NOW) == words


@pytest.mark.parametrize(("share", "cells"), [(0.0, 0), (0.5, 10), (1.0, 20)])
def test_a_bar_is_as_long_as_its_share(share: float, cells: int) -> None:
    assert bar(share) == "█" * cells
