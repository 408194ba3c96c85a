"""What we use of Faust, aiokafka, kafka-python and Python beyond what they document. All of it is in here.

Their versions, mode's and aiokafka's are pinned exactly: tests/test_upstream.py says what we rely on, and fails when a
new version changes it.
"""

import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kafka.net.compat import KafkaNetClient as AdminConnection  # closed by us where an admin client fails to start
from kafka.partitioner import murmur2  # the hash of Java's default partitioner; aiokafka's is the same

if TYPE_CHECKING:
    import faust
    from aiohttp import web
    from aiokafka import AIOKafkaConsumer

__all__ = [
    "AdminConnection",
    "bare_web",
    "certificate_of",
    "let_channels_flow",
    "murmur2",
    "owners",
    "partition_of",
    "require_member",
]


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, as Java, kafka-python and aiokafka compute it.

    >>> partition_of(b"ada", 12)
    5
    """
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def let_channels_flow(app: "faust.App") -> None:
    """Let agents take from channels: Faust opens them only with a consumer of its own, and we have ours."""
    app.flow_control.resume()


def owners(app: "faust.App") -> Mapping[str, Mapping[str, Iterable[int]]]:
    """Which worker has what as of the last assignment: partitions by topic, by the worker's URL."""
    distribution: Mapping[str, Mapping[str, Iterable[int]]] = app.assignor.external_topic_distribution
    return distribution


def require_member(consumer: "AIOKafkaConsumer") -> None:
    """Raise the KafkaError that ended our membership of the group: aiokafka tells it only to who fetches.

    Its cause is an AssertionError where Faust's assignor was given the assignment of a worker with another URL.
    """
    consumer._coordinator.check_errors()


def bare_web(app: "faust.App") -> "web.Application":
    """Faust's web server without any of Faust's own pages. Not started yet."""
    from faust.web.base import BlueprintManager

    server: Any = app.web
    server.blueprints = BlueprintManager()
    application: web.Application = server.web_app
    return application


def certificate_of(path: Path) -> dict[str, Any]:
    """The first certificate of a PEM file, in the form of `SSLSocket.getpeercert`. Raises OSError where there is none.

    Python decodes those of peers only, and only after they passed: what expired cannot be looked at otherwise.
    """
    decode = ssl._ssl._test_decode_cert  # type: ignore[attr-defined]
    certificate: dict[str, Any] = decode(str(path))
    return certificate
