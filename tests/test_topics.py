"""Topics on a real broker: created as they have to be, and every difference named with its remedy."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from structlog.testing import capture_logs

from streamer.engine.kafka_clients import admin_client
from streamer.engine.topics import (
    HEADERS_BYTES,
    RULES,
    Difference,
    check_topics,
    create_topics,
    require_topics,
    topic_specs,
)
from streamer.errors import TopicsError
from streamer.settings import Settings, load
from streamer.tools.kafka import EmbeddedKafka

DAY_MS = 86_400_000
NAMES = ("clicks", "purchases", "items", "profiles", "rejected", "item-signals", "item-models", "streamer-changelog")


@pytest.fixture
def settings(kafka: EmbeddedKafka, prefix: str) -> Settings:
    return load(brokers=kafka.brokers, topic_prefix=prefix, partitions=2)


@pytest.fixture
def admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    with admin_client(settings) as client:
        yield client


def _create(admin: KafkaAdminClient, name: str, partitions: int = 2, **configs: str) -> None:
    dotted = {key.replace("_", "."): value for key, value in configs.items()}
    admin.create_topics({name: {"num_partitions": partitions, "configs": dotted}}, wait_for_metadata=True)


def _configs(admin: KafkaAdminClient, name: str) -> dict[str, str]:
    described = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)], config_filter="all")
    return {key: entry["value"] for key, entry in described["topic"][name].items()}


def _of(differences: list[Difference], topic: str) -> list[tuple[str, str]]:
    return [(each.what, each.severity) for each in differences if each.topic == topic]


def test_every_topic_of_the_contract_is_created_with_its_prefix(settings: Settings) -> None:
    assert create_topics(settings) == [settings.topic_prefix + name for name in NAMES]


def test_topics_that_were_just_created_have_no_differences(settings: Settings) -> None:
    create_topics(settings)
    assert check_topics(settings) == []


def test_created_again_nothing_happens(settings: Settings) -> None:
    create_topics(settings)
    assert create_topics(settings) == []


def test_only_what_is_missing_is_created(settings: Settings, admin: KafkaAdminClient) -> None:
    _create(admin, settings.topic("clicks"))
    created = create_topics(settings)
    assert settings.topic("clicks") not in created
    assert len(created) == len(NAMES) - 1


def test_several_may_create_at_once_and_each_topic_is_made_by_one(settings: Settings) -> None:
    with ThreadPoolExecutor(4) as pool:
        created = [name for names in pool.map(create_topics, [settings] * 4) for name in names]
    assert sorted(created) == sorted(settings.topic_prefix + name for name in NAMES)
    assert check_topics(settings) == []


def test_state_is_compacted_and_events_are_not(settings: Settings, admin: KafkaAdminClient) -> None:
    create_topics(settings)
    policies = {name: _configs(admin, settings.topic_prefix + name)["cleanup.policy"] for name in NAMES}
    compact = {"items", "profiles", "item-models", "streamer-changelog"}
    assert {name for name, policy in policies.items() if policy == "compact"} == compact


def test_deletions_in_compacted_topics_outlast_a_week_of_standstill(
    settings: Settings, admin: KafkaAdminClient
) -> None:
    create_topics(settings)
    for name in ("items", "profiles", "item-models", "streamer-changelog"):
        assert int(_configs(admin, settings.topic_prefix + name)["delete.retention.ms"]) >= 7 * DAY_MS


def test_the_last_hour_of_the_changelog_is_not_compacted(settings: Settings, admin: KafkaAdminClient) -> None:
    create_topics(settings)
    assert int(_configs(admin, settings.changelog_topic)["min.compaction.lag.ms"]) >= DAY_MS // 24


def test_a_record_at_its_sources_limit_fits_into_rejected_with_headers(
    settings: Settings, admin: KafkaAdminClient
) -> None:
    create_topics(settings)
    source = int(_configs(admin, settings.topic("clicks"))["max.message.bytes"])
    assert int(_configs(admin, settings.topic("rejected"))["max.message.bytes"]) >= source + HEADERS_BYTES


def test_old_events_that_are_replayed_keep_the_brokers_retention(settings: Settings, admin: KafkaAdminClient) -> None:
    create_topics(settings)
    configs = _configs(admin, settings.topic("purchases"))
    assert configs["retention.ms"] == "-1"  # what the embedded broker is set to
    assert configs["message.timestamp.type"] == "CreateTime"


def test_missing_topics_are_errors_and_the_next_step_is_named(settings: Settings) -> None:
    differences = check_topics(settings)
    assert [(each.topic, each.severity) for each in differences] == [
        (settings.topic_prefix + name, "error") for name in NAMES
    ]
    assert all("streamer topics create" in each.hint for each in differences)


def test_looking_does_not_create(settings: Settings, admin: KafkaAdminClient) -> None:
    check_topics(settings)
    assert settings.topic("clicks") not in admin.list_topics()


@pytest.mark.parametrize("partitions", [1, 3])
def test_another_number_of_partitions_is_an_error_with_both_numbers(
    settings: Settings, admin: KafkaAdminClient, partitions: int
) -> None:
    _create(admin, settings.topic("purchases"), partitions)
    create_topics(settings)
    (difference,) = check_topics(settings)
    assert (difference.topic, difference.severity) == (settings.topic("purchases"), "error")
    assert (difference.have, difference.want) == (str(partitions), "2")
    assert f"STREAMER_PARTITIONS={partitions}" in difference.hint


def test_state_that_would_be_deleted_by_age_is_an_error(settings: Settings, admin: KafkaAdminClient) -> None:
    _create(admin, settings.topic("profiles"), cleanup_policy="delete")
    _create(admin, settings.changelog_topic, cleanup_policy="compact,delete", delete_retention_ms=str(7 * DAY_MS))
    create_topics(settings)
    differences = check_topics(settings)
    assert ("cleanup.policy", "error") in _of(differences, settings.topic("profiles"))
    assert _of(differences, settings.changelog_topic) == [("cleanup.policy", "error")]
    assert all("--add-config cleanup.policy=compact" in each.hint for each in differences if each.severity == "error")


def test_events_that_would_be_compacted_away_are_an_error(settings: Settings, admin: KafkaAdminClient) -> None:
    _create(admin, settings.topic("clicks"), cleanup_policy="compact")
    create_topics(settings)
    assert _of(check_topics(settings), settings.topic("clicks")) == [("cleanup.policy", "error")]


def test_short_memories_are_warnings(settings: Settings, admin: KafkaAdminClient) -> None:
    _create(admin, settings.signals_topic, retention_ms="3600000")
    _create(admin, settings.topic("items"), cleanup_policy="compact", delete_retention_ms="1000")
    create_topics(settings)
    assert {(each.topic, each.what, each.severity) for each in check_topics(settings)} == {
        (settings.signals_topic, "retention.ms", "warning"),
        (settings.topic("items"), "delete.retention.ms", "warning"),
    }


def test_rejected_smaller_than_a_source_is_an_error(settings: Settings, admin: KafkaAdminClient) -> None:
    _create(admin, settings.topic("clicks"), max_message_bytes="20000000")
    create_topics(settings)
    (difference,) = check_topics(settings)
    assert (difference.topic, difference.what) == (settings.topic("rejected"), "max.message.bytes")
    assert difference.severity == "error"
    assert difference.want == f"≥ {20_000_000 + HEADERS_BYTES}"


def test_more_copies_than_brokers_are_refused_in_one_line_for_all_topics(settings: Settings) -> None:
    with pytest.raises(TopicsError, match="STREAMER_REPLICATION") as caught:
        create_topics(settings.model_copy(update={"replication": 3}))
    _, *lines = str(caught.value).splitlines()
    assert len(lines) == 1
    assert all(settings.topic_prefix + name in lines[0] for name in NAMES)


def test_fewer_copies_than_wanted_are_a_warning(settings: Settings) -> None:
    create_topics(settings)
    differences = check_topics(settings.model_copy(update={"replication": 3}))
    assert {(each.what, each.have, each.severity) for each in differences if each.what == "replication"} == {
        ("replication", "1", "warning")
    }
    assert not [each for each in differences if each.what == "min.insync.replicas"]


def test_three_copies_are_written_to_two_brokers_at_least() -> None:
    assert all(spec.configs["min.insync.replicas"] == "2" for spec in topic_specs(load(replication=3)))
    assert all("min.insync.replicas" not in spec.configs for spec in topic_specs(load(replication=1)))


def test_a_worker_may_start_when_all_is_well(settings: Settings) -> None:
    create_topics(settings)
    require_topics(settings)


def test_a_worker_does_not_start_before_all_errors_are_mended(settings: Settings, admin: KafkaAdminClient) -> None:
    _create(admin, settings.topic("clicks"), 1)
    with pytest.raises(TopicsError) as caught:
        require_topics(settings)
    message = str(caught.value)
    assert "partitions is 1, has to be 2" in message
    assert settings.changelog_topic in message
    assert "streamer topics create" in message


def test_a_worker_starts_with_warnings_and_logs_them(settings: Settings, admin: KafkaAdminClient) -> None:
    _create(admin, settings.signals_topic, retention_ms="3600000")
    create_topics(settings)
    with capture_logs() as lines:
        require_topics(settings)
    (line,) = lines
    assert line["log_level"] == "warning"
    assert settings.signals_topic in line["event"]


@pytest.mark.parametrize(
    ("key", "have", "want", "holds"),
    [
        ("cleanup.policy", "compact", "compact", True),
        ("cleanup.policy", "compact,delete", "compact", False),
        ("retention.ms", "100", "99", True),
        ("retention.ms", "98", "99", False),
        ("retention.ms", "-1", "99", True),
    ],
)
def test_a_longer_retention_will_do_but_no_other_policy(key: str, have: str, want: str, holds: bool) -> None:
    assert RULES[key].holds(have, want) is holds
