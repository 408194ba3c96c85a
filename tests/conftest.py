"""Fixtures that several test files share."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from streamer.engine.warmup import compile_kernels
from streamer.settings import load
from streamer.tools.kafka import EmbeddedKafka

if TYPE_CHECKING:  # most tests need no deployment
    from tests.deployment import Deployment

# Their asserts tell what they found.
pytest.register_assert_rewrite("tests.deployment", "tests.worker_process", "tests.fleet")

# Nothing is timed: the first call of a kernel compiles it, and the machine may be busy.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the tests marked `slow` go on."""
    group = parser.getgroup("faults", "the long tests of `make test-faults`")
    group.addoption("--rounds", type=int, default=20, help="how often each fault is repeated")
    group.addoption("--soak-minutes", type=float, default=10, help="how long memory, descriptors and lag are watched")
    group.addoption("--minutes", type=float, default=1, help="how long faults go on in test_chaos.py; a round at least")
    group.addoption(
        "--pictures", default="", help="where test_chaos.py leaves its graphs; default: with pytest's files"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where faults are tested, events that never come are what is looked for: CI gives no second chance there."""
    for item in items:
        if item.path.name.startswith("test_faults_"):
            item.add_marker(pytest.mark.flaky(reruns=0))


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How often a long test repeats its fault."""
    return int(request.config.getoption("--rounds"))


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A real broker that all tests share: take topic names, groups and transactional ids with `prefix`.

    Its workers find their kernels compiled: what a worker does at its first start must not decide how a test ends.
    """
    compile_kernels(load())
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def prefix() -> str:
    """Makes names on the shared broker this test's own."""
    return f"t{uuid.uuid4().hex[:8]}-"


@pytest.fixture
def fleet(kafka: EmbeddedKafka, tmp_path: Path) -> "Iterator[Deployment]":
    """A deployment whose workers are started again when they end."""
    from tests.fleet import fleet_on

    with fleet_on(kafka.brokers, tmp_path) as deployment:
        yield deployment
