"""A broker with TLS, SASL and ACLs, and the token endpoint that its OAUTHBEARER clients ask: all real, on loopback."""

import argparse
import base64
import json
import re
import shlex
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import trustme
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from streamer.engine.kafka_clients import admin_client
from streamer.settings import load
from streamer.tools.kafka import EmbeddedKafka
from tests.test_kafka_clients import free_ports

ROLES = ("worker", "producer", "subscriber", "admin")
SECRET = "open: sesame&co"  # noqa: S105 - every role's password and client secret; form and header have to escape it
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
POLL_S = 0.02  # what closing an endpoint takes
DOCUMENT = Path(__file__).parents[1] / "deploy" / "KAFKA_SECURITY.md"


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@cache
def _key() -> rsa.RSAPrivateKey:
    """One for all: it takes a while to find."""
    return rsa.generate_private_key(65537, 2048)


class TokenEndpoint:
    """Client credentials against signed tokens. `life_s`, `status` and `answer` may be changed at any time."""

    def __init__(self) -> None:
        self.life_s, self.status = 300.0, 200
        self.answer: bytes | None = None  # in place of a token
        self.asked: list[dict[str, list[str]]] = []
        self._key = _key()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[POLL_S])
        self._thread.start()

    def close(self) -> None:
        """Nobody answers any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def jwks(self) -> str:
        """Its public key, as brokers read it."""
        numbers = self._key.public_key().public_numbers()
        n, e = (number.to_bytes((number.bit_length() + 7) // 8) for number in (numbers.n, numbers.e))
        return json.dumps({"keys": [{"kty": "RSA", "kid": "1", "alg": "RS256", "n": _base64(n), "e": _base64(e)}]})

    def token(self, client: str) -> str:
        """A signed token of a client."""
        now = int(time.time())
        claims = {"sub": client, "aud": "kafka", "iss": "tests", "iat": now, "exp": now + int(self.life_s)}
        head = {"alg": "RS256", "kid": "1"}
        signed = ".".join(_base64(json.dumps(part).encode()) for part in (head, claims))
        return f"{signed}.{_base64(self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def reply(self, authorization: str, form: dict[str, list[str]]) -> tuple[int, bytes]:
        """Status and body of an answer."""
        self.asked.append(form)
        login = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        client, secret = map(unquote_plus, login.split(":"))
        if self.status != 200 or self.answer is not None:
            return self.status, self.answer or b""
        if secret != SECRET:
            return 401, json.dumps({"error": "invalid_client", "error_description": "who are you?"}).encode()
        return 200, json.dumps({"access_token": self.token(client), "expires_in": self.life_s}).encode()

    def _handler(endpoint) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler's
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                status, body = endpoint.reply(self.headers["Authorization"], form)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@contextmanager
def token_endpoint() -> Iterator[TokenEndpoint]:
    """One that is closed at the end."""
    endpoint = TokenEndpoint()
    try:
        yield endpoint
    finally:
        endpoint.close()


class SecureKafka:
    """Three ways in: `brokers` as super user without a password, `sasl` over TLS, `tls` with certificates of both."""

    def __init__(self, directory: Path, endpoint: TokenEndpoint) -> None:
        self.endpoint, self.directory = endpoint, directory
        self._ports = free_ports(4)
        self.brokers, self.sasl, self.tls = (f"127.0.0.1:{port}" for port in self._ports[:3])
        self.authority = trustme.CA()
        self.cafile = directory / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.cafile))
        (directory / "jwks.json").write_text(endpoint.jwks())
        self._server_pem = self._key_and_chain(self.authority.issue_cert("127.0.0.1"), "server")
        self.client_pem = self._key_and_chain(self.authority.issue_cert("w", common_name="worker"), "client")
        self.kafka = EmbeddedKafka(
            directory / "kafka", self._ports[0], properties=self._properties(), jvm_options=[self._allowed()]
        )

    def _key_and_chain(self, leaf: trustme.LeafCert, name: str) -> Path:
        """One file, the key in the form that Java reads."""
        key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = self.directory / f"{name}.pem"
        path.write_bytes(pem + b"".join(cert.bytes() for cert in leaf.cert_chain_pems))
        return path

    def _allowed(self) -> str:
        return f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={(self.directory / 'jwks.json').as_uri()}"

    def _properties(self) -> dict[str, str]:
        names = ("PLAINTEXT", "SASL_SSL", "SSL", "CONTROLLER")
        users = " ".join(f'user_{role}="{SECRET}"' for role in ROLES)
        security = "org.apache.kafka.common.security"
        sasl = "listener.name.sasl_ssl"
        return {
            "listeners": ",".join(f"{n}://127.0.0.1:{p}" for n, p in zip(names, self._ports, strict=True)),
            "controller.quorum.voters": f"1@127.0.0.1:{self._ports[3]}",
            "listener.security.protocol.map": ",".join(f"{n}:{n}" for n in names[:3]) + ",CONTROLLER:PLAINTEXT",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._server_pem),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.cafile),
            "listener.name.ssl.ssl.client.auth": "required",
            "listener.name.ssl.ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/",
            "sasl.enabled.mechanisms": ",".join(MECHANISMS),
            f"{sasl}.plain.sasl.jaas.config": f"{security}.plain.PlainLoginModule required {users};",
            f"{sasl}.scram-sha-256.sasl.jaas.config": f"{security}.scram.ScramLoginModule required;",
            f"{sasl}.scram-sha-512.sasl.jaas.config": f"{security}.scram.ScramLoginModule required;",
            f"{sasl}.oauthbearer.sasl.jaas.config": f"{security}.oauthbearer.OAuthBearerLoginModule required;",
            f"{sasl}.oauthbearer.sasl.server.callback.handler.class": (
                f"{security}.oauthbearer.OAuthBearerValidatorCallbackHandler"
            ),
            f"{sasl}.oauthbearer.sasl.oauthbearer.jwks.endpoint.url": (self.directory / "jwks.json").as_uri(),
            f"{sasl}.oauthbearer.sasl.oauthbearer.expected.audience": "kafka",
            f"{sasl}.oauthbearer.sasl.oauthbearer.expected.issuer": "tests",
        }

    def __enter__(self) -> "SecureKafka":
        self.kafka.start()
        with admin_client(load(brokers=self.brokers)) as admin:
            for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):  # one of a user at a time
                admin.alter_user_scram_credentials([UserScramCredentialUpsertion(r, mechanism, SECRET) for r in ROLES])
        return self

    def __exit__(self, *_: object) -> None:
        self.kafka.stop()

    # ---- settings
    def login(self, role: str, mechanism: str = "SCRAM-SHA-512", **more: Any) -> dict[str, Any]:
        """Settings with which a role logs in."""
        common = {"brokers": self.sasl, "security_protocol": "SASL_SSL", "ssl_cafile": self.cafile}
        own = {"sasl_username": role, "sasl_password": SECRET}
        if mechanism == "OAUTHBEARER":
            own = {
                "sasl_oauth_token_url": self.endpoint.url,
                "sasl_oauth_client_id": role,
                "sasl_oauth_client_secret": SECRET,
            }
        return common | own | {"sasl_mechanism": mechanism} | more

    def certificate(self) -> dict[str, Any]:
        """Settings of mutual TLS; the certificate is the worker's."""
        own = {"brokers": self.tls, "security_protocol": "SSL"}
        return own | {"ssl_cafile": self.cafile, "ssl_certfile": self.client_pem}

    def allow(self, commands: list[str]) -> None:
        """What kafka-acls.sh does with these arguments, each a line."""
        with admin_client(load(brokers=self.brokers)) as admin:
            done = admin.create_acls([acl for command in commands for acl in acls(command)])
        assert not done["failed"], done


_KINDS = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional_id": ResourceType.TRANSACTIONAL_ID,
    "cluster": ResourceType.CLUSTER,
}


def documented_acls() -> list[str]:
    """Every line of deploy/KAFKA_SECURITY.md that is for kafka-acls.sh."""
    blocks = re.findall(r"```sh acl\n(.+?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def acls(command: str) -> list[ACL]:
    """The ACLs that a line for kafka-acls.sh adds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--add", action="store_true", required=True)
    parser.add_argument("--allow-principal", required=True)
    parser.add_argument("--operation", action="append", required=True)
    parser.add_argument("--resource-pattern-type", default="literal")
    parser.add_argument("--cluster", action="append_const", const="kafka-cluster", default=[])
    for kind in [kind for kind in _KINDS if kind != "cluster"]:
        parser.add_argument(f"--{kind.replace('_', '-')}", action="append", default=[])
    found = parser.parse_args(shlex.split(command))
    pattern = ACLResourcePatternType[found.resource_pattern_type.upper()]
    return [
        ACL(found.allow_principal, "*", operation, ACLPermissionType.ALLOW, ResourcePattern(resource, name, pattern))
        for operation in (ACLOperation[_constant(each)] for each in found.operation)
        for kind, resource in _KINDS.items()
        for name in getattr(found, kind)
    ]


def _constant(word: str) -> str:
    """DescribeConfigs as DESCRIBE_CONFIGS."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word).upper()
