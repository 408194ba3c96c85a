"""All topics as one AsyncAPI 3.0 document: who sends what where, under which key, with which headers.

Names and settings of the topics come from `engine.topics`, values from the structs. Written from streamer's side:
it *receives* clicks and *sends* profiles.
"""

from typing import Any, NamedTuple, get_args

import msgspec

from streamer.engine.topics import TopicSpec, topic_specs
from streamer.events import KINDS, Item
from streamer.pipeline.decode import Reason
from streamer.profile import Profile
from streamer.settings import Settings
from streamer.tools.rejected import REPLAYED

BINDING = "0.5.0"  # of AsyncAPI's Kafka bindings
BINARY = "application/octet-stream"
DESCRIBED_CONFIGS = ("retention.ms", "delete.retention.ms", "max.message.bytes")  # what matters to users of a topic

USER_KEY = "user_id in UTF-8, partitioned with murmur2 (librdkafka: partitioner=murmur2_random)"
ITEM_KEY = "item_id in UTF-8, partitioned with murmur2 (librdkafka: partitioner=murmur2_random)"
TEXT = {"type": "string"}


class Message(NamedTuple):
    """One kind of record on a topic."""

    title: str
    summary: str
    key: str
    payload: dict[str, Any]
    content_type: str = "application/json"
    headers: dict[str, Any] | None = None


class Channel(NamedTuple):
    """One topic: what is on it, and what streamer does with it (`receive`, `send` or both)."""

    summary: str
    actions: tuple[str, ...]
    messages: dict[str, Message]


PROFILE_HEADERS = {
    "ce_specversion": {"const": "1.0"},
    "ce_id": {"type": "string", "description": "user_id/version"},
    "ce_source": {"type": "string", "description": "the worker: application id and instance"},
    "ce_type": {"const": "profile.changed.v1"},
    "ce_time": {"type": "string", "format": "date-time", "description": "when it was published"},
    "ce_subject": {"type": "string", "description": "user_id"},
    "content-type": {"const": "application/json"},
}
TRACE_HEADERS = {
    "traceparent": {"type": "string", "description": "of the event behind the profile (W3C trace context)"},
    "tracestate": {"type": "string", "description": "of the event behind the profile (W3C trace context)"},
}
REJECTED_HEADERS = {
    "reason": {"enum": list(get_args(Reason))},
    "detail": {"type": "string", "description": "for people: what is wrong with this record"},
    "source_topic": TEXT,
    "source_partition": {"type": "string", "pattern": "^[0-9]+$"},
    "source_offset": {"type": "string", "pattern": "^[0-9]+$"},
}


def asyncapi(major: int, schemas: dict[str, Any]) -> dict[str, Any]:
    """The whole document; `major` is the major version of the contracts, `schemas` what its payloads refer to."""
    specs = {spec.name: spec for spec in topic_specs(Settings.model_construct())}
    channels = _channels()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "streamer",
            "version": f"{major}.0.0",
            "description": "Clicks and purchases in, user profiles out. Unknown fields are ignored; times are Unix ms.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"kafka": _server()},
        "channels": {name: _channel(name, channel, specs[_topic(name)]) for name, channel in channels.items()},
        "operations": _operations(channels),
        "components": {"schemas": schemas, "messages": _messages(channels), "parameters": PARAMETERS},
    }


PARAMETERS = {
    "prefix": {"default": "", "description": "STREAMER_TOPIC_PREFIX: several deployments on one cluster"},
    "app_id": {"default": "streamer", "description": "STREAMER_APP_ID"},
}


def _channels() -> dict[str, Channel]:
    return {
        **{
            kind.topic: Channel(_summary(kind.struct), ("receive",), {kind.name: _event(kind.struct)}) for kind in KINDS
        },
        "items": Channel(
            "The catalogue; the latest value of a key counts.",
            ("receive",),
            {
                "item": Message("Item", _summary(Item), ITEM_KEY, _reference("Item")),
                "itemDeleted": Message("Item deleted", "Null: the item is gone.", ITEM_KEY, {"type": "null"}),
            },
        ),
        "profiles": Channel(
            "The latest profile of every user.",
            ("send",),
            {
                "profile": Message(
                    "Profile",
                    _summary(Profile),
                    USER_KEY,
                    _reference("Profile"),
                    headers=_headers(PROFILE_HEADERS, TRACE_HEADERS),
                ),
                "userErased": Message("User erased", "Null: the user was erased.", USER_KEY, {"type": "null"}),
            },
        ),
        "rejected": Channel(
            "Records that were not taken in, and why.", ("send",), {"rejected": _rejected(), "replayed": _replayed()}
        ),
        "itemSignals": _internal("What events teach about items, on its way to each item's owner."),
        "itemModels": _internal("Every item's model, published by its owner, read by every worker."),
        "changelog": _internal("State of users and items, one row a key."),
    }


def _event(struct: type[msgspec.Struct]) -> Message:
    return Message(struct.__name__, _summary(struct), USER_KEY, _reference(struct.__name__))


def _rejected() -> Message:
    summary = "The record as it came, its own headers first; if a name stands twice, the last one is ours."
    return Message("Rejected", summary, "as it came", {}, BINARY, _headers(REJECTED_HEADERS))


def _replayed() -> Message:
    summary = "The record in `rejected` that is the source was put back into its topic."
    headers = REJECTED_HEADERS | {"reason": {"const": REPLAYED}}
    return Message("Replayed", summary, "null", {"type": "null"}, headers=_headers(headers))


def _internal(summary: str) -> Channel:
    payload = {"type": "string", "format": "binary", "description": "Versioned; no contract: it may change any time."}
    row = Message("Row", summary, "internal", payload, BINARY)
    return Channel(f"Internal. {summary}", ("send", "receive"), {"row": row})


def _topic(channel: str) -> str:
    """A channel's topic name with default settings."""
    internal = {"itemSignals": "item-signals", "itemModels": "item-models", "changelog": "streamer-changelog"}
    return internal.get(channel, channel)


def _channel(name: str, channel: Channel, spec: TopicSpec) -> dict[str, Any]:
    address = "{prefix}" + ("{app_id}-changelog" if name == "changelog" else spec.name)
    used = [parameter for parameter in PARAMETERS if "{" + parameter + "}" in address]
    return {
        "address": address,
        "summary": channel.summary,
        "messages": {key: {"$ref": f"#/components/messages/{_message_id(name, key)}"} for key in channel.messages},
        "parameters": {parameter: {"$ref": f"#/components/parameters/{parameter}"} for parameter in used},
        "bindings": {"kafka": {"topicConfiguration": _topic_configuration(spec), "bindingVersion": BINDING}},
    }


def _topic_configuration(spec: TopicSpec) -> dict[str, Any]:
    limits = {key: int(spec.configs[key]) for key in DESCRIBED_CONFIGS if key in spec.configs}
    return {"cleanup.policy": spec.configs["cleanup.policy"].split(",")} | limits


def _operations(channels: dict[str, Channel]) -> dict[str, Any]:
    return {
        action + name[0].upper() + name[1:]: {"action": action, "channel": {"$ref": f"#/channels/{name}"}}
        for name, channel in channels.items()
        for action in channel.actions
    }


def _messages(channels: dict[str, Channel]) -> dict[str, Any]:
    return {
        _message_id(name, key): _message(key, message)
        for name, channel in channels.items()
        for key, message in channel.messages.items()
    }


def _message_id(channel: str, key: str) -> str:
    return f"{channel}Row" if key == "row" else key


def _message(name: str, message: Message) -> dict[str, Any]:
    document = {
        "name": name,
        "title": message.title,
        "summary": message.summary,
        "contentType": message.content_type,
        "payload": message.payload,
        "bindings": {"kafka": {"key": {**TEXT, "description": message.key}, "bindingVersion": BINDING}},
    }
    return document | ({"headers": message.headers} if message.headers else {})


def _headers(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    properties = required | (optional or {})
    return {"type": "object", "required": list(required), "properties": properties, "additionalProperties": True}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _summary(struct: type[msgspec.Struct]) -> str:
    return (struct.__doc__ or "").splitlines()[0]


def _server() -> dict[str, Any]:
    return {
        "host": "{brokers}",
        "protocol": "kafka",
        "description": "STREAMER_BROKERS; TLS and SASL as STREAMER_SECURITY_PROTOCOL says.",
        "variables": {"brokers": {"default": "localhost:9092", "description": "host:port of one or more brokers"}},
    }
