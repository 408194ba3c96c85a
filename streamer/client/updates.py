"""Records of the profile topic as typed updates, and which of them are new. No Kafka."""

from typing import Any, NamedTuple, get_args

import msgspec

from streamer.profile import Profile, What

_decode = msgspec.json.Decoder(Profile).decode
_KNOWN_CHANGES = frozenset(get_args(What))


class Record(NamedTuple):
    """What an update needs of a Kafka record; `timestamp` in Unix ms."""

    key: bytes | None
    value: bytes | None
    partition: int
    offset: int
    timestamp: int


class Update(msgspec.Struct, frozen=True, gc=False):
    """A user's new profile, or None when the user was erased: forget what you have of them.

    `at_ms` is when it was written to Kafka (Unix ms); `partition` and `offset` are where.
    """

    user_id: str
    profile: Profile | None
    at_ms: int
    partition: int
    offset: int


class Versions:
    """The version handed over last, for at least the last `limit` users and at most twice as many.

    Two generations: when the young one is full it becomes the old one, and what was the old one is forgotten.

    >>> versions = Versions(limit=1000)
    >>> versions.advance("ada", 7), versions.advance("ada", 7), versions.advance("ada", 6), versions.advance("ada", 8)
    (True, False, False, True)
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._young: dict[str, int] = {}
        self._old: dict[str, int] = {}

    def advance(self, user_id: str, version: int) -> bool:
        """Whether `version` is above all that were seen of the user; if so it is remembered."""
        known = self._young.get(user_id) or self._old.get(user_id, 0)
        if version <= known:
            return False
        self._young[user_id] = version
        if len(self._young) >= self._limit:
            self._old, self._young = self._young, {}
        return True

    def forget(self, user_id: str) -> None:
        """After an erasure the user's versions may begin anew."""
        self._young.pop(user_id, None)
        self._old.pop(user_id, None)


def decode_update(record: Record) -> Update:
    """The update that a record is. Raises ValueError (msgspec's errors are some) for what is not one."""
    if not record.key:
        raise ValueError("no key")
    user_id = record.key.decode()
    profile = None if record.value is None else decode_profile(record.value)
    return Update(user_id, profile, record.timestamp, record.partition, record.offset)


def decode_profile(value: bytes) -> Profile:
    """A published profile; kinds of change that this version does not know are left out of `changed`.

    Raises msgspec.MsgspecError.
    """
    try:
        return _decode(value)
    except msgspec.ValidationError:
        fields = msgspec.json.decode(value)
        if not isinstance(fields, dict):
            raise
        return msgspec.convert(fields | {"changed": _known_changes(fields.get("changed"))}, Profile)


def _known_changes(changed: Any) -> Any:
    if not isinstance(changed, list):
        return changed
    return [each for each in changed if not isinstance(each, dict) or each.get("what") in _KNOWN_CHANGES]
