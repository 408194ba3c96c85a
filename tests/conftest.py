"""Fixtures that several test files share."""

import uuid
from collections.abc import Iterator

import pytest
from hypothesis import settings

from streamer.tools.kafka import EmbeddedKafka

pytest.register_assert_rewrite("tests.deployment", "tests.worker_process")  # their asserts tell what they found

# Nothing is timed: the first call of a kernel compiles it, and the machine may be busy.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A real broker that all tests share: take topic names, groups and transactional ids with `prefix`."""
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def prefix() -> str:
    """Makes names on the shared broker this test's own."""
    return f"t{uuid.uuid4().hex[:8]}-"
