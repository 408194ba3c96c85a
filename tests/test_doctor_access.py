"""What `streamer doctor` says of TLS and of the HTTP port, by real handshakes with good and bad certificates."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from streamer.engine.store import DataDir
from streamer.settings import Settings, load
from streamer.tools.doctor import access
from tests.test_doctor import find
from tests.test_kafka_clients import free_ports

NOW = datetime.now(UTC)
YEAR = timedelta(days=365)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@contextmanager
def listening(answer: Callable[[socket.socket], object]) -> Iterator[int]:
    """A port of this machine where each connection is answered so."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):  # a client that refuses our certificate hangs up
                answer(connection)

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@contextmanager
def broker(leaf: trustme.LeafCert) -> Iterator[int]:
    """Somebody who shows this certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    leaf.configure_cert(context)

    def shake_hands(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(1)

    with listening(shake_hands) as port:
        yield port


@pytest.fixture
def cafile(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def secure(port: int, **options: object) -> Settings:
    return load(brokers=f"127.0.0.1:{port}", security_protocol="SSL", **options)


def test_a_good_certificate_is_told_with_its_end(authority: trustme.CA, cafile: Path) -> None:
    with broker(authority.issue_cert("127.0.0.1", not_after=NOW + YEAR)) as port:
        assert f"{(NOW + YEAR).year} GMT" in find(access.tls(secure(port, ssl_cafile=cafile)), "ok", "is good").found


def test_a_certificate_that_ends_soon_is_a_warning(authority: trustme.CA, cafile: Path) -> None:
    with broker(authority.issue_cert("127.0.0.1", not_after=NOW + timedelta(days=10, hours=1))) as port:
        find(access.tls(secure(port, ssl_cafile=cafile)), "warning", "in 10 days")


def test_an_expired_certificate_is_an_error(authority: trustme.CA, cafile: Path) -> None:
    with broker(authority.issue_cert("127.0.0.1", not_before=NOW - 2 * YEAR, not_after=NOW - YEAR)) as port:
        assert "renewed" in find(access.tls(secure(port, ssl_cafile=cafile)), "error", "has expired").do


def test_a_certificate_for_another_name_is_an_error(authority: trustme.CA, cafile: Path) -> None:
    with broker(authority.issue_cert("kafka.example")) as port:
        found = find(access.tls(secure(port, ssl_cafile=cafile)), "error", "not valid for '127.0.0.1'")
    assert "connect by a name that is in the certificate" in found.do


def test_a_certificate_of_an_unknown_authority_is_an_error(authority: trustme.CA) -> None:
    with broker(authority.issue_cert("127.0.0.1")) as port:
        assert "STREAMER_SSL_CAFILE" in find(access.tls(secure(port)), "error", "certificate refused").do


def test_a_port_that_does_not_speak_tls_is_an_error(cafile: Path) -> None:
    with listening(lambda connection: connection.sendall(b"nothing of the kind")) as port:
        assert "SSL listener" in find(access.tls(secure(port, ssl_cafile=cafile)), "error", "no TLS handshake").do


def test_a_broker_that_is_away_is_an_error_with_its_address(cafile: Path) -> None:
    port = free_ports(1)[0]
    find(access.tls(secure(port, ssl_cafile=cafile)), "error", f"127.0.0.1:{port} cannot be reached")


def test_our_own_certificate_is_looked_at_too(authority: trustme.CA, cafile: Path, tmp_path: Path) -> None:
    ours = authority.issue_cert("worker", not_before=NOW - 2 * YEAR, not_after=NOW - YEAR)
    ours.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "ours.pem"))
    settings = secure(free_ports(1)[0], ssl_cafile=cafile, ssl_certfile=tmp_path / "ours.pem")
    find(access.tls(settings), "error", "our certificate", "ours.pem expired on")


def test_no_tls_is_worth_a_note_where_brokers_are_elsewhere() -> None:
    find(access.tls(load(brokers="localhost:9092")), "ok", "no TLS")
    find(access.tls(load(brokers="kafka.example:9092")), "note", "no TLS")


# ---- HTTP
def test_a_free_port_is_well_and_a_taken_one_an_error(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    settings = load(data_dir=tmp_path, http_port=port)
    find(access.http(settings), "ok", "is free")
    with socket.create_server(("127.0.0.1", port)):
        find(access.http(settings), "error", f"something listens on 127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("status", "severity", "words"),
    [("200 OK", "ok", "is ready"), ("503 Unavailable", "note", "restoring 3 of 4 partitions")],
)
def test_a_worker_that_runs_is_asked_how_it_is(tmp_path: Path, status: str, severity: str, words: str) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        body = b'{"status": "not ready", "reason": "restoring 3 of 4 partitions"}'
        connection.sendall(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body))

    held = DataDir(tmp_path)
    with listening(answer) as port:
        find(access.http(load(data_dir=tmp_path, http_port=port)), severity, words)
    find(access.http(load(data_dir=tmp_path, http_port=port)), "warning", "does not answer")
    held.close()
