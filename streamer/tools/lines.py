"""Event lines: files of JSON objects, one event or item a line, plain or gzipped. No Kafka, no clock.

A line is the topic's value plus `type`, which picks the topic:

    {"type": "click", "event_id": "e1", "user_id": "ada", "item_id": "tent-7", "ts": 1700000000000}
    {"type": "item", "item_id": "tent-7", "title": "Tent", "tags": ["tent"]}
    {"type": "item", "item_id": "tent-7", "deleted": true}            null on the topic: forget the item

Only `type`, the key and the frame of the object are looked at here: the values go on as they are, unknown fields
included, and the worker rejects what is wrong with them.
"""

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from streamer.errors import StreamerError
from streamer.events import KINDS, Item, Millis, UserEvent

MAX_VALUE_BYTES = 1_000_000  # just under what a broker takes with its default message.max.bytes (1,048,588)
GZIP_MAGIC = b"\x1f\x8b"


class LineType(NamedTuple):
    """Where a line of this type goes: the contract topic, and the field that is the record's key."""

    topic: str
    key_field: str


LINE_TYPES = {kind.name: LineType(kind.topic, "user_id") for kind in KINDS} | {"item": LineType("items", "item_id")}
TYPE_OF_STRUCT = {kind.struct: kind.name for kind in KINDS} | {Item: "item"}


class Line(NamedTuple):
    """One record to be: `topic` without prefix, `value` None for a tombstone, `ts` None where it has no good one."""

    number: int
    topic: str
    key: bytes
    value: bytes | None
    ts: int | None


class BadLine(NamedTuple):
    """A line that cannot become a record, and why."""

    number: int
    reason: str


class EventFileError(StreamerError):
    """An event file is missing, unreadable or cut off. The message names the file: write or download it again."""


class _LineError(ValueError):
    """The reason why one line cannot become a record."""


_Fields = dict[str, msgspec.Raw]
_decode_fields = msgspec.json.Decoder(_Fields).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_ts = msgspec.json.Decoder(Millis).decode
_encode = msgspec.json.Encoder().encode


def parse(raw_lines: Iterable[bytes], on_bad: Callable[[BadLine], None], *, shift_ms: int = 0) -> Iterator[Line]:
    """Lines in order; each bad one goes to `on_bad` and is skipped, empty ones are passed over.

    `shift_ms` is added to every `ts` that is a number, in the value too.

    >>> bad = []
    >>> list(parse([b'{"type":"click","user_id":"ada","ts":5}', b"oops"], bad.append, shift_ms=2))
    [Line(number=1, topic='clicks', key=b'ada', value=b'{"user_id":"ada","ts":7}', ts=7)]
    >>> bad
    [BadLine(number=2, reason='malformed JSON: invalid character (byte 0)')]
    """
    for number, raw in enumerate(raw_lines, start=1):
        if raw.isspace():
            continue
        try:
            yield _line(number, raw, shift_ms)
        except _LineError as exc:
            on_bad(BadLine(number, str(exc)))


def read(path: Path, on_bad: Callable[[BadLine], None], *, shift_ms: int = 0) -> Iterator[Line]:
    """`parse` over a file. Raises EventFileError where it cannot be opened or its gzip stream is cut off or damaged."""
    with open_events(path) as file:
        yield from parse(raw_lines(file, path), on_bad, shift_ms=shift_ms)


def open_events(path: Path) -> BinaryIO:
    """The file as it lies on disk (its `tell()` shows how far a reader is). Raises EventFileError."""
    try:
        return path.open("rb")
    except OSError as exc:
        raise EventFileError(f"cannot read {path}: {exc.strerror}: give a file of event lines, plain or .gz") from None


def raw_lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The lines of an open file, unzipped where it starts like a gzip file. Raises EventFileError with `path`."""
    start = file.read(len(GZIP_MAGIC))
    file.seek(0)
    if start != GZIP_MAGIC:
        yield from file
        return
    try:
        with gzip.open(file) as unzipped:
            yield from unzipped
    except EOFError:
        raise EventFileError(f"{path} is cut off: its gzip stream has no end. Write or download it again") from None
    except (zlib.error, gzip.BadGzipFile) as exc:
        raise EventFileError(f"{path} is damaged ({exc}). Write or download it again") from None


def newest_ts(lines: Iterable[Line]) -> int | None:
    """The newest `ts` of all lines in Unix ms, None where no line has one."""
    return max((line.ts for line in lines if line.ts is not None), default=None)


def encode_line(event: UserEvent | Item) -> bytes:
    r"""The event line of a struct, with its line end.

    >>> encode_line(Item(item_id="tent-7", title="Tent", tags=("tent",)))
    b'{"type":"item","item_id":"tent-7","title":"Tent","tags":["tent"]}\n'
    """
    return b'{"type":"%b",%b\n' % (TYPE_OF_STRUCT[type(event)].encode(), _encode(event)[1:])


def _line(number: int, raw: bytes, shift_ms: int) -> Line:
    fields = _fields(raw)
    line_type = _type(fields)
    key = _key(fields, line_type.key_field)
    ts = _ts(fields)
    if ts is not None and shift_ms:
        ts += shift_ms
        fields["ts"] = msgspec.Raw(b"%d" % ts)
    return Line(number, line_type.topic, key, _value(fields, line_type.topic), ts)


def _fields(raw: bytes) -> _Fields:
    try:
        return _decode_fields(raw)
    except msgspec.ValidationError:
        raise _LineError("not a JSON object") from None
    except msgspec.DecodeError as exc:
        raise _LineError(f"malformed JSON: {str(exc).removeprefix('JSON is malformed: ')}") from None
    except UnicodeDecodeError:
        raise _LineError("malformed JSON: not UTF-8") from None
    except RecursionError:
        raise _LineError("malformed JSON: nested too deeply") from None


def _type(fields: _Fields) -> LineType:
    name = _text(fields.pop("type", None))
    if name is None:
        raise _LineError("no type")
    if name not in LINE_TYPES:
        raise _LineError(f"unknown type {name!r}: one of {', '.join(LINE_TYPES)}")
    return LINE_TYPES[name]


def _key(fields: _Fields, key_field: str) -> bytes:
    key = _text(fields.get(key_field))
    if not key:
        raise _LineError(f"no {key_field}: it is the key of the record")
    return key.encode()


def _value(fields: _Fields, topic: str) -> bytes | None:
    if topic == "items" and bytes(fields.get("deleted", b"")) == b"true":
        return None
    value = _encode(fields)
    if len(value) > MAX_VALUE_BYTES:
        raise _LineError(f"{len(value)} bytes: Kafka takes at most {MAX_VALUE_BYTES}")
    return value


def _text(raw: msgspec.Raw | None) -> str | None:
    try:
        return None if raw is None else _decode_text(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _ts(fields: _Fields) -> int | None:
    raw = fields.get("ts")
    try:
        return None if raw is None else _decode_ts(raw)
    except msgspec.DecodeError:
        return None
