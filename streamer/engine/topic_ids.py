"""Which topics these are: a name can be deleted and made anew, Kafka's own id of a topic cannot."""

import uuid
from typing import Final

import msgspec
from kafka.admin import KafkaAdminClient

from streamer.engine.kafka_clients import admin_client
from streamer.events import KINDS
from streamer.settings import Settings

NO_ID: Final = str(uuid.UUID(int=0))
EVENTS: Final = tuple(kind.topic for kind in KINDS)
SOURCES: Final = (*EVENTS, "items", "item-signals")  # every partition has a position in each


class Origin(msgspec.Struct, frozen=True):
    """Which changelog a local state is a prefix of; `topic_id` is Kafka's own, NO_ID from brokers before 2.8."""

    cluster: str
    topic: str
    topic_id: str

    def is_made_anew(self, since: "Origin") -> bool:
        """Whether this is the same name, but was deleted and created since."""
        return is_another(self.topic_id, since.topic_id)


def is_another(topic_id: str, since: str) -> bool:
    """Whether two ids of a name are of two topics, as far as can be told.

    >>> is_another("a", "b"), is_another("a", "a"), is_another("a", NO_ID)
    (True, False, False)
    """
    return NO_ID not in (topic_id, since) and topic_id != since


def changelog_origin(settings: Settings) -> Origin:
    """Which changelog is there now. Raises BrokerError when there is no broker."""
    name = settings.changelog_topic
    with admin_client(settings) as admin:
        cluster: str = admin.describe_cluster()["cluster_id"]
        ids = _ids(admin, [name])
    return Origin(cluster, name, ids[name])


def topic_ids(settings: Settings, names: list[str]) -> dict[str, str]:
    """The ids of topics by name; NO_ID from brokers before 2.8. Raises BrokerError when there is no broker."""
    with admin_client(settings) as admin:
        return _ids(admin, names)


def _ids(admin: KafkaAdminClient, names: list[str]) -> dict[str, str]:
    return {topic["name"]: str(topic.get("topic_id", NO_ID)) for topic in admin.describe_topics(names)}
