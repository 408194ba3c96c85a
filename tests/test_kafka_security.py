"""SASL, TLS and ACLs on a real broker: every client logs in every way, each role works with just its rights."""

import gc
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient
from structlog.testing import capture_logs

from streamer.cli import main
from streamer.client import EventProducer, ProfileSubscriber
from streamer.engine import kafka_clients, oauth
from streamer.engine.kafka_clients import admin_client, aiokafka_options, wait_for_broker
from streamer.engine.warmup import compile_kernels
from streamer.errors import BrokerError, SettingsError, TopicsError
from streamer.events import Click, Item
from streamer.settings import load
from tests.deployment import Deployment, counted, deployed
from tests.secure_world import MECHANISMS, SECRET, SecureKafka, TokenEndpoint, documented_acls, token_endpoint
from tests.test_kafka_clients import free_ports
from tests.worker_process import environment

# Neither library waits until TLS has said goodbye: sockets are left …
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

GUESS = "mellon"
T0 = 1_760_000_000_000


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with token_endpoint() as endpoint, SecureKafka(tmp_path_factory.mktemp("secure"), endpoint) as broker:
        yield broker


@pytest.fixture(scope="module", autouse=True)
def _sockets_end_here() -> Iterator[None]:
    """… and are not found left in a test of another file, where nothing ignores it."""
    yield
    gc.collect()


# ---- logging in


@pytest.mark.parametrize("how", [*MECHANISMS, "mutual TLS"])
async def test_both_libraries_log_in(secure: SecureKafka, how: str) -> None:
    settings = load(**(secure.certificate() if how == "mutual TLS" else secure.login("worker", how)))
    with admin_client(settings) as admin:
        assert admin.describe_cluster()["cluster_id"]
    client = AIOKafkaClient(**aiokafka_options(settings))
    try:
        await client.bootstrap()
        assert client.cluster.brokers()
    finally:
        await client.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_wrong_password_ends_the_wait_and_is_not_shown(secure: SecureKafka, mechanism: str) -> None:
    settings = load(**secure.login("worker", mechanism, sasl_password=GUESS, broker_wait_ms=0))
    with pytest.raises(BrokerError, match=rf"{secure.sasl} refuses user 'worker' \({mechanism}\): .*[Aa]uth") as caught:
        wait_for_broker(settings)
    assert GUESS not in str(caught.value)


def test_a_client_that_the_endpoint_refuses_ends_the_wait_and_its_secret_is_not_shown(secure: SecureKafka) -> None:
    settings = load(**secure.login("worker", "OAUTHBEARER") | {"sasl_oauth_client_secret": GUESS})
    with pytest.raises(BrokerError, match=r"client 'worker' no token: 401: invalid_client: who are you") as caught:
        wait_for_broker(settings)
    assert GUESS not in str(caught.value)


def test_a_broker_of_an_unknown_authority_is_not_trusted(secure: SecureKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_clients, "BOOTSTRAP_MS", 500)
    login = {name: value for name, value in secure.login("worker").items() if name != "ssl_cafile"}
    with pytest.raises(BrokerError, match="CERTIFICATE_VERIFY_FAILED"), admin_client(load(**login)):
        pass


def test_who_shows_no_certificate_does_not_get_in_where_it_is_asked_for(
    secure: SecureKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_clients, "BOOTSTRAP_MS", 500)
    settings = load(brokers=secure.tls, security_protocol="SSL", ssl_cafile=secure.cafile)
    with pytest.raises(BrokerError, match="something listens, but not with"), admin_client(settings):
        pass


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"security_protocol": "SASL_SSL", "sasl_username": "u"}, "needs STREAMER_SASL_USERNAME and STREAMER_SASL_PAS"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "needs STREAMER_SASL_OAUTH_TOKEN_URL"),
        ({"ssl_keyfile": Path("key.pem")}, "STREAMER_SSL_KEYFILE needs STREAMER_SSL_CERTFILE"),
    ],
)
def test_settings_that_cannot_log_in_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load(**settings)


@pytest.mark.parametrize("url", ["http://sso.example/token", "ftp://sso.example/token"])
def test_a_client_secret_is_sent_over_tls_only(url: str) -> None:
    login = {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}
    with pytest.raises(SettingsError, match="has to begin with https://"):
        load(**login, sasl_oauth_token_url=url, sasl_oauth_client_id="c", sasl_oauth_client_secret=SECRET)


# ---- tokens


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    with token_endpoint() as own:
        own.life_s = 100
        yield own


def tokens(endpoint: TokenEndpoint, clock: Clock, **more: str) -> oauth.Tokens:
    login = {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_url": endpoint.url}
    return oauth.Tokens(load(**login, sasl_oauth_client_id="shop", sasl_oauth_client_secret=SECRET, **more), clock)


def test_a_token_is_kept_until_a_fifth_of_its_life_is_left(endpoint: TokenEndpoint) -> None:
    clock = Clock()
    own = tokens(endpoint, clock)
    first = own.token()
    clock.now = 79
    assert own.token() == first
    clock.now = 81
    own.token()
    assert len(endpoint.asked) == 2


def test_the_scope_is_asked_for_where_it_is_set(endpoint: TokenEndpoint) -> None:
    tokens(endpoint, Clock()).token()
    tokens(endpoint, Clock(), sasl_oauth_scope="kafka profiles").token()
    assert [form.get("scope") for form in endpoint.asked] == [None, ["kafka profiles"]]
    assert endpoint.asked[0]["grant_type"] == ["client_credentials"]


def test_an_endpoint_that_is_away_stops_nobody_as_long_as_the_token_is_good(endpoint: TokenEndpoint) -> None:
    clock = Clock()
    own = tokens(endpoint, clock)
    first, endpoint.status, clock.now = own.token(), 503, 99
    with capture_logs() as lines:
        assert own.token() == first
    assert [line["left_s"] for line in lines] == [1]
    clock.now = 100
    with pytest.raises(oauth.TokenError, match="503"):
        own.token()
    endpoint.status = 200
    assert own.token()


@pytest.mark.parametrize(("status", "kind"), [(400, oauth.RefusedError), (401, oauth.RefusedError)])
def test_an_endpoint_that_says_no_is_told_from_one_that_is_away(
    endpoint: TokenEndpoint, status: int, kind: type[Exception]
) -> None:
    endpoint.status, endpoint.answer = status, b"<html>"
    with pytest.raises(kind, match=f"no token: {status}"):
        tokens(endpoint, Clock()).token()
    endpoint.status = 429
    with pytest.raises(oauth.TokenError) as caught:
        tokens(endpoint, Clock()).token()
    assert not isinstance(caught.value, oauth.RefusedError)


@pytest.mark.parametrize("answer", [b"<html>", b"{}", b"[]", b'{"access_token": "t", "expires_in": "soon"}'])
def test_an_answer_that_is_no_token_is_told(endpoint: TokenEndpoint, answer: bytes) -> None:
    endpoint.answer = answer
    with pytest.raises(oauth.TokenError, match="answers with no token"):
        tokens(endpoint, Clock()).token()


def test_an_endpoint_that_is_not_there_is_waited_for_as_a_broker_is(secure: SecureKafka) -> None:
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}/token"
    login = secure.login("worker", "OAUTHBEARER", broker_wait_ms=1) | {"sasl_oauth_token_url": nobody}
    with pytest.raises(BrokerError, match=r"no token endpoint at .*refused.*waited"):
        wait_for_broker(load(**login))


def test_an_authority_that_cannot_be_read_is_named(endpoint: TokenEndpoint, tmp_path: Path) -> None:
    (tmp_path / "not.pem").write_text("nothing of the kind")
    with pytest.raises(SettingsError, match="STREAMER_SASL_OAUTH_CAFILE"):
        tokens(endpoint, Clock(), sasl_oauth_cafile=str(tmp_path / "not.pem"))


# ---- what each role may do


@pytest.fixture(scope="module")
def deployment(secure: SecureKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """With the default names, which deploy/KAFKA_SECURITY.md has; what it lists is all that is allowed."""
    compile_kernels(load())  # what a worker does at its first start must not decide how a test ends
    secure.allow(documented_acls())
    run(secure, "topics", "create")
    root = tmp_path_factory.mktemp("roles")
    with deployed(secure.brokers, root, partitions=2, topic_prefix="", publish_within_ms=500) as own:
        yield own


def run(secure: SecureKafka, *arguments: str) -> int:
    """A command as the admin; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(**secure.login("admin"), partitions=2, http_port=0).items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main(arguments)
    return int(ended.value.code or 0)


def test_each_role_does_its_work_with_the_documented_rights_alone(
    secure: SecureKafka, deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = deployment.worker(**secure.login("worker", max_event_bytes=300))
    with EventProducer(load(**secure.login("producer"))) as producer:
        producer.send(Item("mug", "Mug", ("crockery",)))
        producer.send(Click("e1", "ada", "mug", T0))
    deployment.send([Click("e2", "ada", "mug", T0, tags=("x" * 200, "y" * 200))])  # too large for this worker
    with ProfileSubscriber(load(**secure.login("subscriber")), group="my-service") as subscriber:
        deadline = threading.Timer(180, subscriber.stop)
        deadline.start()
        update = next(subscriber, None)
        deadline.cancel()
    assert update is not None, worker.said
    assert update.user_id == "ada"
    deployment.wait_drained()
    assert worker.stop() == 0
    assert "Authorization" not in worker.said
    assert run(secure, "topics", "check") == 0
    run(secure, "doctor", "--data-dir", str(worker.data_dir))
    assert run(secure, "rejected", "list") == 0
    assert run(secure, "rejected", "replay", "--yes") == 0
    assert len(deployment.read("clicks")) == 3
    assert run(secure, "reset", "--to", "earliest", "--drop-state", "--yes") == 0
    printed = capsys.readouterr()
    assert "Authorization" not in printed.out + printed.err


def test_what_a_role_may_not_do_is_refused_and_named(secure: SecureKafka, deployment: Deployment) -> None:
    assert deployment.settings.topic_prefix == ""
    with (
        ProfileSubscriber(load(**secure.login("subscriber")), group="another-service") as subscriber,
        pytest.raises(BrokerError, match="ask the cluster's owner for READ on the group"),
    ):
        next(subscriber)
    with pytest.raises(TopicsError, match=r"clicks: .*ask the cluster's owner for access"):
        EventProducer(load(**secure.login("subscriber")))
    with pytest.raises(TopicsError, match=r"profiles: .*ask the cluster's owner for access"):
        ProfileSubscriber(load(**secure.login("producer")))


@pytest.mark.slow
def test_a_worker_outlives_its_tokens(secure: SecureKafka, deployment: Deployment) -> None:
    """Brokers hang up on whoever's token has expired."""
    secure.endpoint.life_s, before = 10, len(secure.endpoint.asked)
    worker = deployment.worker("tokens", **secure.login("worker", "OAUTHBEARER")).wait_ready()
    sent = 0
    while len(secure.endpoint.asked) < before + 6:
        sent += 1
        deployment.send([Click(f"t{sent}", "tom", "mug", T0 + sent)])
        deployment.until(partial(_counts, deployment, sent), "the click")
    assert worker.stop() == 0


def _counts(deployment: Deployment, clicks: int) -> bool:
    profile = deployment.latest_of("tom")
    return bool(profile) and counted(profile) == clicks
