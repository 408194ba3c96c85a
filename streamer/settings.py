"""Every option with its unit, default and the reason for the default. The only reader of the environment.

`STREAMER_<NAME>` sets the field `<name>`. All mistakes are reported at once.
"""

import os
import re
import socket
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from annotated_types import Ge, Le
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from streamer.errors import SettingsError
from streamer.events import KINDS

Milliseconds = Annotated[int, Ge(1)]
Share = Annotated[float, Ge(0), Le(1)]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def option(default: Any, unit: str, why: str, **limits: Any) -> Any:
    """A settings field that carries its unit and the reason for its default."""
    return Field(default, description=why, json_schema_extra={"unit": unit}, **limits)


class Settings(BaseSettings):
    """All settings of all commands."""

    model_config = SettingsConfigDict(env_prefix="STREAMER_", env_ignore_empty=True, extra="ignore", frozen=True)

    # Kafka
    brokers: str = option("localhost:9092", "host:port,…", "Kafka's own default port")
    app_id: str = option(
        "streamer",
        "name",
        "names the consumer group, transactional ids and internal topics",
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}$",
    )
    topic_prefix: str = option(
        "",
        "text",
        "put before every topic name, for several deployments on one cluster",
        pattern=r"^[A-Za-z0-9_.-]{0,100}$",
    )
    partitions: int = option(12, "partitions", "divides evenly over 1, 2, 3, 4, 6 and 12 workers", ge=1, le=4096)
    replication: int = option(-1, "copies", "-1 takes the broker's own default", ge=-1, le=10)
    instance_id: str = option(
        "", "name", "static group membership: a worker that is back within the session time-out keeps its partitions"
    )
    session_timeout_ms: Milliseconds = option(
        10_000, "ms", "a dead worker's partitions move after this; brokers refuse less than 6000", ge=6000
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = option(
        "PLAINTEXT", "name", "Kafka's own default"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = option(
        "PLAIN", "name", "Kafka's own default"
    )
    sasl_username: str = option("", "text", "for PLAIN and SCRAM")
    sasl_password: SecretStr = option(SecretStr(""), "secret", "for PLAIN and SCRAM")
    sasl_oauth_token_url: str = option("", "URL", "for OAUTHBEARER: the token endpoint, asked with client credentials")
    sasl_oauth_client_id: str = option("", "text", "for OAUTHBEARER")
    sasl_oauth_client_secret: SecretStr = option(SecretStr(""), "secret", "for OAUTHBEARER")
    sasl_oauth_scope: str = option("", "text", "for OAUTHBEARER; default: what the endpoint gives without being asked")
    sasl_oauth_cafile: Path | None = option(
        None, "path", "the authority that signed the token endpoint's certificate; default: the system's"
    )
    ssl_cafile: Path | None = option(
        None, "path", "the authority that signed the brokers' certificates; default: the system's"
    )
    ssl_certfile: Path | None = option(None, "path", "our certificate, for mutual TLS")
    ssl_keyfile: Path | None = option(None, "path", "our key, for mutual TLS")
    broker_wait_ms: int = option(
        120_000, "ms", "how long to wait for a broker that is not there before giving up; 0 waits for ever", ge=0
    )

    # State
    data_dir: Path = option(
        Path("streamer-data"), "path", "beside the process; in production a volume of the worker's own"
    )
    cache_users: int = option(
        100_000,
        "users",
        "a newcomer takes 1 KB, a shopper with 100 tags 7 KB, 14 KB at most: 100 to 700 MB",
        ge=1000,
        le=50_000_000,
    )
    catalogue_items: int = option(
        1_000_000,
        "items",
        "about 1 KB each in every worker; beyond it, items that only events name get no model",
        ge=1000,
        le=100_000_000,
    )
    ranking_mb: int = option(
        1024,
        "MiB",
        "the most that a worker keeps of which items follow each other: 3 KB an item with events, until this is full."
        " 0: no recommendations",
        ge=0,
    )
    rocksdb_cache_mb: int = option(64, "MiB", "one block cache shared by all partitions", ge=8)

    # Flow
    batch_records: int = option(
        5000, "records", "about 25 ms of work: the event loop stays responsive", ge=1, le=100_000
    )
    fetch_buffer_mb: int = option(
        128,
        "MiB",
        "what is fetched and not applied yet, however large the records; enough for 100,000 events of 150 bytes",
        ge=8,
        le=65_536,
    )
    checkpoint_ms: Milliseconds = option(
        500,
        "ms",
        "the longest time between checkpoints under load, mostly half of it; idle ones come at once",
        le=60_000,
    )
    checkpoint_backlog_ms: Milliseconds = option(
        5_000,
        "ms",
        "the longest time between checkpoints while there is a backlog, at most half of what it takes to work it off:"
        " a row is then written once for many events; no more than a quarter of publish_within_ms",
        le=60_000,
    )
    checkpoint_rows: int = option(
        5000, "rows", "a partition's checkpoint starts early at this many, so that no cut blocks for long", ge=1
    )

    stall_ms: int = option(
        120_000,
        "ms",
        "work that makes no progress for this long ends the worker (exit code 75); a group may take 60 s to rebalance",
        ge=5000,
    )

    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = option(
        "none",
        "codec",
        "readers of profiles need the codec, and kafka-python brings only gzip; measured on made-up events: zstd writes"
        " an eighth of the bytes for 3 % more CPU, snappy a quarter for none, lz4 a fifth for 15 %",
    )

    # Bad input
    max_event_bytes: int = option(65_536, "bytes", "larger events are rejected as too_large", ge=64)
    future_ms: Milliseconds = option(
        300_000, "ms", "tolerated clock difference between a producer and its record's Kafka timestamp"
    )
    too_old_ms: Milliseconds = option(
        90 * 86_400_000, "ms", "older than this behind the newest event of the partition is rejected as too_old"
    )
    seen_ids: int = option(
        64, "event ids", "the longest burst of repeats of one user that is recognised", ge=1, le=1024
    )

    # Profile
    interests: int = option(20, "interests", "what a page or a ranking can use", ge=1, le=24)
    recent_items: int = option(
        40, "items", "half-life of 3 events: older ones carry no weight in the vector", ge=1, le=255
    )
    half_life_ms: Milliseconds = option(
        30 * 86_400_000, "ms", "interests fade by half in this time; measured best single time scale on shop data"
    )
    recent_half_life_ms: Milliseconds = option(
        86_400_000, "ms", "the short scale behind `recent`: today against always"
    )
    smoothing: float = option(
        0.3,
        "events",
        "prior events at the population's shares on every scale: where all has faded they are what is left; how much a"
        " user's own events count is learned (measured: anything up to 0.3 is alike)",
        ge=0,
    )
    vector_dim: int = option(32, "numbers", "folding a user in costs 8 µs at 32 and 21 µs at 64", ge=4, le=256)

    # Gate: when is a change worth a message
    publish_within_ms: int = option(
        60_000, "ms", "a change too small to be published at once is published within this", ge=100
    )
    heartbeat_ms: int = option(
        0, "ms", "0: a silent user gets no message; else each user is published at least this often", ge=0
    )
    interest_enter: Share = option(
        0.02,
        "share",
        "a tag is a new interest from this share on: below it one click in a long history makes a message",
    )
    interest_leave: Share = option(0.01, "share", "half of interest_enter: a tag at the edge does not flap")
    interest_shift: Share = option(0.05, "share", "a visible move of a bar on a page")
    vector_cosine: float = option(
        0.9, "cosine", "25° from the published vector: nearest neighbours change", ge=-1, le=1
    )

    # HTTP and logs
    http_host: str = option("127.0.0.1", "address", "profiles are personal data: nobody outside sees them by default")
    http_port: int = option(6066, "port", "Faust's own default", ge=0, le=65535)
    advertised_url: str = option("", "URL", "how other workers reach this one; default: http://host:port")
    http_token: SecretStr = option(
        SecretStr(""), "secret", "asked of everyone who reads profiles; on loopback nobody else can reach them"
    )
    http_tls_cert: Path | None = option(None, "path", "certificate (PEM, with its chain): turns TLS on")
    http_tls_key: Path | None = option(None, "path", "the certificate's key (PEM)")
    http_tls_client_ca: Path | None = option(
        None, "path", "whoever reads profiles must show a certificate of this authority (PEM): mutual TLS"
    )
    http_cors: str = option("", "origins", "whose pages may use the API, with commas between them; `*`: anybody's")
    http_rate: float = option(
        2000.0,
        "requests/s",
        "of one client's address, as many at once; about what a worker answers beside its work. 0: no limit",
        ge=0,
        le=1e6,
    )
    trace_context: bool = option(
        default=True,
        unit="switch",
        why="a profile has the traceparent and tracestate of the event behind it; 0.1 % of the work",
    )
    otlp_url: str = option(
        "",
        "URL",
        "spans of batches and checkpoints go there (OTLP over HTTP, …/v1/traces), with the extra `otel`; default: none",
        pattern=r"^(https?://\S+)?$",
    )
    log_format: Literal["text", "json"] = option("text", "name", "text for people, json for machines")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = option(
        "INFO", "name", "one line per thing that an operator may want to know"
    )
    failpoints: bool = option(
        default=False,
        unit="switch",
        why="for fault tests only: the worker fails where the file `fail` in its data directory says",
    )

    @field_validator("brokers")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        wrong = [
            name for name in value.split(",") if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}", name.strip())
        ]
        if wrong:
            raise ValueError(
                f"{', '.join(map(repr, wrong))} is not host:port: give one or more, with commas between them"
            )
        return value

    @field_validator("advertised_url")
    @classmethod
    def _url(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://(\[[0-9a-fA-F:]+\]|[\w.-]+)(:\d{1,5})?/?", value):
            raise ValueError("is not how a worker is reached: give it as http://worker-0.streamer:6066")
        return value

    @field_validator("http_cors")
    @classmethod
    def _origins(cls, value: str) -> str:
        wrong = [
            name
            for name in split(value)
            if not re.fullmatch(r"\*|https?://(\[[0-9a-fA-F:]+\]|[\w.-]+)(:\d{1,5})?", name)
        ]
        if wrong:
            raise ValueError(
                f"{', '.join(map(repr, wrong))} is no origin: give it as a browser does, https://shop.example"
            )
        return value

    @model_validator(mode="after")
    def _no_fights(self) -> "Settings":
        """Settings that fight each other."""
        problems = []
        if self.interest_leave > self.interest_enter:
            problems.append("interest_leave is above interest_enter: lower STREAMER_INTEREST_LEAVE")
        if self.recent_half_life_ms > self.half_life_ms:
            problems.append("recent_half_life_ms is above half_life_ms: lower STREAMER_RECENT_HALF_LIFE_MS")
        if self.cache_users < (users := len(KINDS) * self.batch_records):
            problems.append(
                f"cache_users must be at least {users}, batch_records for each of {len(KINDS)} kinds of event: raise"
                " STREAMER_CACHE_USERS"
            )
        problems += _login_problems(self)
        if (self.http_tls_cert is None) != (self.http_tls_key is None):
            problems.append("TLS needs both STREAMER_HTTP_TLS_CERT and STREAMER_HTTP_TLS_KEY")
        if self.http_tls_client_ca is not None and self.http_tls_cert is None:
            problems.append("STREAMER_HTTP_TLS_CLIENT_CA needs STREAMER_HTTP_TLS_CERT and STREAMER_HTTP_TLS_KEY")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def topic(self, name: str) -> str:
        """The full name of a contract topic."""
        return self.topic_prefix + name

    @property
    def group_id(self) -> str:
        """Names the consumer group, transactional ids and local state: deployments with other topics have their own."""
        return f"{self.topic_prefix}{self.app_id}"

    @property
    def changelog_topic(self) -> str:
        """State of all users and items, one row a key, compacted."""
        return f"{self.group_id}-changelog"

    @property
    def signals_topic(self) -> str:
        """What events teach about items, on its way to each item's owner."""
        return self.topic("item-signals")

    @property
    def models_topic(self) -> str:
        """Every item's model, published by its owner, read by every worker."""
        return self.topic("item-models")

    @property
    def source(self) -> str:
        """Who we are, for headers and logs."""
        return f"{self.app_id}/{self.instance_id or socket.gethostname()}"


def split(names: str) -> list[str]:
    """The parts of a list with commas between them."""
    return [name.strip() for name in names.split(",") if name.strip()]


def _login_problems(settings: Settings) -> list[str]:
    """What is missing to log in at Kafka, or would tell a secret on the way."""
    problems = []
    if settings.ssl_keyfile is not None and settings.ssl_certfile is None:
        problems.append("STREAMER_SSL_KEYFILE needs STREAMER_SSL_CERTFILE")
    if not settings.security_protocol.startswith("SASL"):
        return problems
    how = f"{settings.security_protocol} with {settings.sasl_mechanism}"
    url = urlsplit(settings.sasl_oauth_token_url)
    if settings.sasl_mechanism != "OAUTHBEARER":
        if not (settings.sasl_username and settings.sasl_password.get_secret_value()):
            problems.append(f"{how} needs STREAMER_SASL_USERNAME and STREAMER_SASL_PASSWORD")
    elif not (settings.sasl_oauth_client_id and settings.sasl_oauth_client_secret.get_secret_value() and url.hostname):
        problems.append(f"{how} needs STREAMER_SASL_OAUTH_TOKEN_URL, …_CLIENT_ID and …_CLIENT_SECRET")
    elif url.scheme != "https" and not (url.scheme == "http" and url.hostname in _LOOPBACK):
        problems.append("STREAMER_SASL_OAUTH_TOKEN_URL has to begin with https://: the secret is sent there")
    return problems


def unknown_variables() -> list[str]:
    """`STREAMER_…` variables that no setting reads: most often a slip of the pen."""
    known = {f"STREAMER_{name.upper()}" for name in Settings.model_fields}
    return sorted(name for name in os.environ if name.startswith("STREAMER_") and name not in known)


def load(**overrides: Any) -> Settings:
    """Settings from the environment; arguments that are not None win. Raises SettingsError with all mistakes."""
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as exc:
        raise SettingsError(_explain(exc)) from None


def _explain(exc: ValidationError) -> str:
    lines = []
    for error in exc.errors():
        field = str(error["loc"][0]) if error["loc"] else ""
        name = f"STREAMER_{field.upper()}={error['input']!r}: " if field else ""
        lines.append(f"{name}{error['msg'].removeprefix('Value error, ')}")
    return "settings are wrong:\n  " + "\n  ".join(lines)


@lru_cache(maxsize=1)
def units() -> dict[str, str]:
    """Unit of every setting by name."""
    return {name: str((f.json_schema_extra or {}).get("unit", "")) for name, f in Settings.model_fields.items()}  # type: ignore[union-attr]
