"""What a worker writes can be compressed, and is read back by the next one."""

from pathlib import Path

import msgspec
import pytest

from streamer.events import Click, Item
from streamer.tools.kafka import EmbeddedKafka
from tests.deployment import deployed

CODEC_IDS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}  # in the attributes of a record batch
ATTRIBUTES_AT = 21


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_what_is_written_in_a_codec_is_restored(kafka: EmbeddedKafka, tmp_path: Path, codec: str) -> None:
    with deployed(kafka.brokers, tmp_path, partitions=1, compression=codec) as deployment:
        first = deployment.worker("first").wait_ready()
        deployment.send([Item("mug", "Mug", ("kitchen",))])
        deployment.send(Click(f"c{n}", "ada", "mug", 1_760_000_000_000 + n) for n in range(30))
        deployment.wait_drained()
        assert first.stop() == 0
        second = deployment.worker("second").wait_ready()  # on an empty disk
        answer = second.get("/v1/users/ada/profile")
        assert answer is not None
        assert msgspec.json.decode(answer[1])["activity"]["clicks"] == 30
        settings = deployment.settings
        for topic in (settings.topic("profiles"), settings.changelog_topic):
            assert codec_of(kafka, topic) == CODEC_IDS[codec]


def codec_of(kafka: EmbeddedKafka, topic: str) -> int:
    """Of the first record batch in the broker's log of partition 0."""
    [log] = kafka.data_dir.rglob(f"{topic}-0/00000000000000000000.log")
    return int.from_bytes(log.read_bytes()[ATTRIBUTES_AT : ATTRIBUTES_AT + 2], "big") & 7
