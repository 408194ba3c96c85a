"""What we rely on in Faust, mode, aiokafka and kafka-python: a new version that changes it fails here by name."""

import inspect
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiokafka
import faust
import mode
import pytest
from aiokafka.consumer import fetcher
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from faust.app.base import BootStrategy
from faust.assignor.partition_assignor import PartitionAssignor
from kafka.admin import KafkaAdminClient
from packaging.requirements import Requirement

from streamer.engine.app import App
from streamer.serving.http import faust_options
from streamer.settings import load
from streamer.upstream import AdminConnection, bare_web, let_channels_flow, murmur2, owners
from streamer.upstream.batches import _PartitionRecords

ROOT = Path(__file__).parents[1]
PINNED = ("faust-streaming", "mode-streaming", "aiokafka")


@pytest.fixture
async def app(tmp_path: Path) -> faust.App:
    """Made on an event loop: Faust would open one of its own otherwise."""
    return App("upstream", datadir=tmp_path, store="memory://", **faust_options(load(data_dir=tmp_path)))


@pytest.mark.parametrize("name", PINNED)
def test_pinned_exactly_and_installed_so(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (requirement,) = (r for text in project["dependencies"] if (r := Requirement(text)).name == name)
    assert str(requirement.specifier) == f"=={version(name)}"


def test_no_module_reaches_into_another_library_past_this_list() -> None:
    """Names that are private or undocumented stand in `streamer.upstream` only."""
    private = (
        *("flow_control", "external_topic_distribution", "web_app", "BlueprintManager", "KafkaNetClient"),
        *("_coordinator", "_consumer_record", "_value_deserializer", "PartitionRecords"),
    )
    modules = [path for path in (ROOT / "streamer").rglob("*.py") if path.parent.name != "upstream"]
    texts = {str(path): path.read_text(encoding="utf-8") for path in modules}
    found = {(name, word) for name, text in texts.items() for word in private if re.search(rf"\b{word}\b", text)}
    assert found == set()


# ---- Faust
async def test_faust_starts_without_its_consumer_and_producer(app: faust.App) -> None:
    assert BootStrategy.enable_kafka is True
    assert (app.boot_strategy.enable_kafka, app.boot_strategy.enable_kafka_consumer) == (False, None)
    services = [*app.boot_strategy.kafka_consumer(), *app.boot_strategy.kafka_producer()]
    assert services == []


async def test_channels_flow_when_they_are_let(app: faust.App) -> None:
    assert not app.flow_control.is_active()
    let_channels_flow(app)
    assert app.flow_control.is_active()


async def test_assignor_is_one_that_aiokafka_takes_and_tells_who_owns_what(app: faust.App) -> None:
    assert isinstance(app.assignor, PartitionAssignor)
    assert isinstance(app.assignor, aiokafka.coordinator.assignors.abstract.AbstractPartitionAssignor)
    app.assignor.external_topic_distribution = {"http://one": {"clicks": [0, 2]}}
    assert owners(app) == {"http://one": {"clicks": [0, 2]}}


async def test_web_server_has_none_of_fausts_pages(app: faust.App) -> None:
    server = bare_web(app)
    app.web.blueprints.apply(app.web)
    assert list(server.router.resources()) == []


@pytest.mark.parametrize("name", ["conf", "http_client", "service", "channel", "agent", "finalize"])
def test_app_has_what_we_use(name: str) -> None:
    assert hasattr(faust.App, name)


@pytest.mark.parametrize(
    "name", ["add_future", "crash_reason", "on_start", "on_stop", "should_stop", "sleep", "task", "start", "stop"]
)
def test_service_has_what_we_use(name: str) -> None:
    assert hasattr(mode.Service, name)


# ---- aiokafka
SIGNATURES = {
    aiokafka.AIOKafkaProducer.create_batch: "(self)",
    aiokafka.AIOKafkaProducer.send_batch: "(self, batch, topic, *, partition)",
    aiokafka.AIOKafkaProducer.begin_transaction: "(self)",
    aiokafka.AIOKafkaProducer.send_offsets_to_transaction: "(self, offsets, group_id)",
    aiokafka.AIOKafkaProducer.commit_transaction: "(self)",
    aiokafka.AIOKafkaConsumer.getmany: "(self, *partitions, timeout_ms=0, max_records=None)",
    aiokafka.AIOKafkaConsumer.last_stable_offset: "(self, partition)",
    aiokafka.AIOKafkaConsumer.beginning_offsets: "(self, partitions)",
    aiokafka.AIOKafkaConsumer.end_offsets: "(self, partitions)",
    aiokafka.AIOKafkaConsumer.seek: "(self, partition, offset)",
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: function.__qualname__)
def test_signature_is_the_one_we_call(function: Any) -> None:
    parameters = inspect.signature(function).parameters.values()
    bare = inspect.Signature([each.replace(annotation=inspect.Parameter.empty) for each in parameters])
    assert str(bare) == SIGNATURES[function]


def test_fetched_chunks_are_taken_apart_by_the_classes_that_we_replace() -> None:
    source = inspect.getsource(fetcher.Fetcher._proc_fetch_request)
    assert re.findall(r"\b(\w+Records)\(", source) == ["MemoryRecords", "PartitionRecords"]
    unpacking = inspect.getsource(_PartitionRecords.__base__)
    for part in ("self._records = records", "self._value_deserializer", "self._consumer_record(tp, record)"):
        assert part in unpacking
    assert "if record.offset < self.next_fetch_offset:" in unpacking


# ---- kafka-python
def test_admin_client_takes_the_connection_that_we_make() -> None:
    assert KafkaAdminClient.DEFAULT_CONFIG["kafka_client"] is AdminConnection
    assert callable(AdminConnection.close)


@pytest.mark.parametrize(
    ("key", "hashed"), [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)]
)
def test_hash_is_javas(key: bytes, hashed: int) -> None:
    """The vectors of Apache Kafka's own UtilsTest."""
    assert murmur2(key) % 2**32 == aiokafka_murmur2(key) % 2**32 == hashed % 2**32
