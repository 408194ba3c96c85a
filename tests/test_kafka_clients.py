"""Reaching brokers: options for both client libraries, and what one is told when there is no broker."""

import ast
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import streamer
from streamer.engine import kafka_clients
from streamer.engine.kafka_clients import (
    admin_client,
    aiokafka_options,
    kafka_python_options,
    wait_for_broker,
)
from streamer.errors import BrokerError, SettingsError
from streamer.settings import Settings, load
from streamer.tools.kafka import EmbeddedKafka

USER, PASSWORD = "worker", "open sesame"


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture
def nobody() -> str:
    """An address where nothing listens."""
    return f"127.0.0.1:{free_ports(1)[0]}"


class Clock:
    """Seconds that pass only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def test_a_plain_broker_needs_addresses_and_a_name_only() -> None:
    options = aiokafka_options(load(brokers="a:1, b:2", app_id="shop", instance_id="w1"))
    assert options == {"bootstrap_servers": ["a:1", "b:2"], "client_id": "shop-w1", "security_protocol": "PLAINTEXT"}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_sasl_settings_reach_both_libraries(mechanism: str) -> None:
    settings = _sasl_settings("a:1", sasl_mechanism=mechanism)
    for options in (aiokafka_options(settings), kafka_python_options(settings)):
        assert options["security_protocol"] == "SASL_PLAINTEXT"
        assert options["sasl_mechanism"] == mechanism
        assert (options["sasl_plain_username"], options["sasl_plain_password"]) == (USER, PASSWORD)


def test_every_client_in_the_project_takes_the_options_of_the_settings() -> None:
    """Whoever makes one from addresses alone is shut out by the first cluster with TLS."""
    makers = {f"{kind}{what}" for kind in ("Kafka", "AIOKafka") for what in ("Consumer", "Producer", "AdminClient")}
    peers = {"stock_faust.py", "quix_streams.py", "light_worker.py"}  # of the benchmark, on a broker of its own
    bare = [
        f"{path.name}:{node.lineno}"
        for path in Path(streamer.__file__).parent.rglob("*.py")
        if path.name not in peers
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in makers
        and not any(keyword.arg is None for keyword in node.keywords)
    ]
    assert bare == []


def test_a_password_is_not_sent_where_sasl_is_off() -> None:
    settings = load(sasl_username=USER, sasl_password=PASSWORD)
    assert PASSWORD not in aiokafka_options(settings).values()


def test_tls_checks_the_brokers_name_and_certificate() -> None:
    context = aiokafka_options(load(security_protocol="SSL"))["ssl_context"]
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("field", ["ssl_cafile", "ssl_certfile"])
def test_certificates_that_do_not_load_are_named_with_their_variable(field: str, tmp_path: Path) -> None:
    (tmp_path / "not.pem").write_text("nothing of the kind")
    settings = load(security_protocol="SSL", **{field: tmp_path / "not.pem"})
    with pytest.raises(SettingsError, match=f"STREAMER_{field.upper()}=.*not.pem"):
        kafka_python_options(settings)


def test_ipv6_addresses_lose_their_brackets() -> None:
    assert kafka_clients.addresses(load(brokers="[::1]:9092,kafka:9093")) == [("::1", 9092), ("kafka", 9093)]


def test_waiting_for_a_broker_that_is_there_says_nothing(kafka: EmbeddedKafka) -> None:
    with capture_logs() as lines:
        wait_for_broker(load(brokers=kafka.brokers))
    assert lines == []


def test_one_broker_of_several_is_enough(kafka: EmbeddedKafka, nobody: str) -> None:
    wait_for_broker(load(brokers=f"{nobody},{kafka.brokers}"))


def test_waiting_ends_after_the_time_that_is_set_and_says_what_to_do(nobody: str) -> None:
    clock = Clock()
    with pytest.raises(BrokerError, match=rf"no broker at {nobody}: .*refused.*waited 12 s.*set STREAMER_BROKERS"):
        wait_for_broker(load(brokers=nobody, broker_wait_ms=12_000), clock=clock, sleep=clock.sleep)
    assert clock.now == pytest.approx(12)


def test_a_line_is_printed_at_most_every_five_seconds(nobody: str) -> None:
    clock = Clock()
    with capture_logs() as lines, pytest.raises(BrokerError):
        wait_for_broker(load(brokers=nobody, broker_wait_ms=60_000), clock=clock, sleep=clock.sleep)
    waited = [line["waited_s"] for line in lines]
    assert waited[0] == 0
    assert min(later - earlier for earlier, later in pairwise(waited)) >= 5
    assert all(nobody in line["brokers"] and "refused" in line["reason"] for line in lines)


def test_pauses_grow_to_five_seconds_and_no_further(nobody: str) -> None:
    clock = Clock()
    with capture_logs(), pytest.raises(BrokerError):
        wait_for_broker(load(brokers=nobody, broker_wait_ms=60_000), clock=clock, sleep=clock.sleep)
    *grown, _last = clock.pauses
    assert grown == sorted(grown)
    assert max(grown) == 5


def test_zero_waits_for_ever(nobody: str) -> None:
    class EnoughError(Exception):
        pass

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now > 600:
            raise EnoughError

    clock = Clock()
    with capture_logs(), pytest.raises(EnoughError):
        wait_for_broker(load(brokers=nobody, broker_wait_ms=0), clock=clock, sleep=sleep)


@contextmanager
def _rude_server() -> Iterator[str]:
    """Accepts connections and hangs up, as something that is not Kafka does."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.close()

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_something_that_is_not_kafka_is_told_apart_and_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_clients, "BOOTSTRAP_MS", 300)
    with _rude_server() as address:
        before = threading.active_count()
        with (
            pytest.raises(BrokerError, match="something listens, but not with STREAMER_SECURITY_PROTOCOL=PLAINTEXT"),
            admin_client(load(brokers=address)),
        ):
            pass
        assert threading.active_count() == before


def _sasl_settings(brokers: str, **options: Any) -> Settings:
    given = {"security_protocol": "SASL_PLAINTEXT", "sasl_username": USER, "sasl_password": PASSWORD, **options}
    return load(brokers=brokers, **given)
