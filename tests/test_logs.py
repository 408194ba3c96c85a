"""What operators and their log collectors read."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from aiokafka.errors import GroupCoordinatorNotAvailableError

from streamer import logs
from streamer.errors import BrokerError
from streamer.settings import load


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    root, levels = logging.root, {name: logging.getLogger(name).level for name in logs.LEVELS}
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    logs._for_machines = False
    structlog.reset_defaults()


def test_a_line_for_machines_is_one_json_object_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(load(log_format="json"))
    structlog.get_logger("streamer.test").info("profiles published", users=3, tag="Käse")
    line = json.loads(capsys.readouterr().err)
    assert line.pop("timestamp").endswith("Z")
    expected = {"event": "profiles published", "level": "info", "logger": "streamer.test", "users": 3, "tag": "Käse"}
    assert line == expected


def test_lines_of_libraries_have_the_form_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(load(log_format="json"))
    logging.getLogger("faust.app").warning("partition %d", 3)
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"], line["logger"]) == ("partition 3", "warning", "faust.app")


def test_a_line_for_people_has_no_escape_codes_away_from_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(load(log_format="text"))
    structlog.get_logger("streamer.test").warning("no broker yet", waited_s=5)
    line = capsys.readouterr().err
    assert "no broker yet" in line
    assert "waited_s=5" in line
    assert "\x1b" not in line


def test_a_traceback_for_machines_stays_on_its_line_and_shows_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(load(log_format="json"))
    password = "".join(("hu", "sh"))
    try:
        raise ValueError(len(password))
    except ValueError:
        structlog.get_logger("streamer.test").exception("batch failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: 4" in json.loads(line)["exception"]
    assert password not in line


def test_lines_below_the_level_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(load(log_level="WARNING"))
    structlog.get_logger("streamer.test").info("quiet")
    assert capsys.readouterr().err == ""


def test_a_client_that_retries_is_heard_once_in_five_seconds() -> None:
    now = [0.0]
    calm = logs.Calm(clock=lambda: now[0])
    heard = []
    for _ in range(12):
        heard.append(calm.filter(_record("aiokafka.conn", "Unable to connect to node %s")))
        now[0] += 1.0
    assert [second for second, passed in enumerate(heard) if passed] == [0, 5, 10]


def test_other_words_for_the_same_trouble_are_held_back_and_another_library_is_not() -> None:
    calm = logs.Calm(clock=lambda: 0.0)
    assert calm.filter(_record("aiokafka", "Unable to update metadata"))
    assert not calm.filter(_record("aiokafka.conn", "Unable connect to node"))
    assert calm.filter(_record("kafka.net.manager", "Connection failed"))


def test_a_healthy_first_start_makes_no_error() -> None:
    line = f"Group Coordinator Request failed: {GroupCoordinatorNotAvailableError()}"
    calm = logs.Calm(clock=lambda: 0.0)
    assert not calm.filter(_record("aiokafka.consumer.group_coordinator", line))
    assert calm.filter(_record("aiokafka.consumer.group_coordinator", "Group Coordinator Request failed: [Error 7]"))


def test_a_client_that_retries_prints_no_traceback() -> None:
    record = _record("kafka.net.manager", "Connection failed")
    record.exc_info = (ValueError, ValueError("inside"), None)
    assert logs.Calm().filter(record)
    assert record.exc_info is None
    assert "ValueError('inside')" in record.getMessage()  # what is wrong, without the library's loop


def test_our_own_lines_are_never_held_back() -> None:
    calm = logs.Calm(clock=lambda: 0.0)
    assert all(calm.filter(_record("streamer.engine", "checkpoint")) for _ in range(3))


def test_configured_again_a_line_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(load())
    logs.configure(load())
    structlog.get_logger("streamer.test").info("once")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_reason_of_the_end_is_plain_words_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(load(log_format="text"))
    logs.report(BrokerError("no broker: start Kafka"))
    assert capsys.readouterr().err == "error: no broker: start Kafka\n"


def test_the_reason_of_the_end_is_a_log_line_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(load(log_format="json"))
    logs.report(BrokerError("no broker: start Kafka"))
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"], line["exit_code"]) == ("no broker: start Kafka", "error", 3)


def _record(logger: str, message: str) -> logging.LogRecord:
    return logging.LogRecord(logger, logging.ERROR, __file__, 1, message, None, None)
