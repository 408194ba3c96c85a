import gzip
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.events import KINDS, Click, Item, Purchase
from streamer.tools.lines import BadLine, EventFileError, Line, encode_line, newest_ts, parse, read

CLICK = b'{"type":"click","event_id":"e1","user_id":"ada","item_id":"tent","ts":1000}\n'


def parsed(*raw: bytes, shift_ms: int = 0) -> tuple[list[Line], list[BadLine]]:
    bad: list[BadLine] = []
    return list(parse(raw, bad.append, shift_ms=shift_ms)), bad


def test_a_line_becomes_a_keyed_record_without_its_type():
    (line,), _ = parsed(CLICK)
    assert line == Line(1, "clicks", b"ada", b'{"event_id":"e1","user_id":"ada","item_id":"tent","ts":1000}', 1000)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_user_event_has_its_topic(kind):
    (line,), _ = parsed(b'{"type":"%b","user_id":"ada"}' % kind.name.encode())
    assert (line.topic, line.key) == (kind.topic, b"ada")


def test_an_item_is_keyed_by_its_id():
    (line,), _ = parsed(b'{"type":"item","item_id":"tent","title":"Tent","tags":[]}')
    assert (line.topic, line.key, line.ts) == ("items", b"tent", None)


def test_a_deleted_item_is_a_tombstone():
    (line,), _ = parsed(b'{"type":"item","item_id":"tent","deleted":true}')
    assert line.value is None


def test_an_item_that_is_not_deleted_is_no_tombstone():
    (line,), _ = parsed(b'{"type":"item","item_id":"tent","deleted":false}')
    assert line.value == b'{"item_id":"tent","deleted":false}'


def test_a_deleted_field_on_an_event_is_just_an_unknown_field():
    (line,), _ = parsed(b'{"type":"click","user_id":"ada","deleted":true}')
    assert line.value == b'{"user_id":"ada","deleted":true}'


def test_unknown_fields_and_bad_values_go_on_untouched():
    (line,), _ = parsed(b'{"zip":[1, {"a":"\\u00e9"}],"user_id":"ada","type":"click","ts":"noon","price":-1e400}')
    assert line.value == b'{"zip":[1, {"a":"\\u00e9"}],"user_id":"ada","ts":"noon","price":-1e400}'
    assert line.ts is None


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"oops", "malformed JSON: invalid character (byte 0)"),
        (b'{"type":"click"', "malformed JSON: Input data was truncated"),
        (b'{"\xff":1}', "malformed JSON: not UTF-8"),
        (b'{"x":' + b"[" * 3000, "malformed JSON: nested too deeply"),
        (b"[1]", "not a JSON object"),
        (b'{"user_id":"ada"}', "no type"),
        (b'{"type":7,"user_id":"ada"}', "no type"),
        (b'{"type":"sneeze","user_id":"ada"}', "unknown type 'sneeze': one of click, purchase, item"),
        (b'{"type":"click","item_id":"tent"}', "no user_id: it is the key of the record"),
        (b'{"type":"click","user_id":""}', "no user_id: it is the key of the record"),
        (b'{"type":"click","user_id":17}', "no user_id: it is the key of the record"),
        (b'{"type":"click","user_id":"\xff"}', "no user_id: it is the key of the record"),
        (b'{"type":"item","user_id":"ada"}', "no item_id: it is the key of the record"),
    ],
)
def test_a_bad_line_is_named_with_its_reason_and_skipped(raw, reason):
    lines, bad = parsed(CLICK, raw, CLICK)
    assert [line.number for line in lines] == [1, 3]
    assert bad == [BadLine(2, reason)]


def test_a_line_too_large_for_kafka_is_bad():
    _, bad = parsed(b'{"type":"click","user_id":"ada","x":"%b"}' % (b"x" * 1_000_000))
    assert bad == [BadLine(1, "1000024 bytes: Kafka takes at most 1000000")]


def test_empty_lines_are_passed_over_but_counted_in_the_numbers():
    lines, bad = parsed(b"\n", b"  \r\n", CLICK)
    assert ([line.number for line in lines], bad) == ([3], [])


def test_a_shift_moves_the_time_inside_and_outside_of_the_value():
    (line,), _ = parsed(CLICK, shift_ms=-400)
    assert line.ts == 600
    assert json.loads(line.value or b"")["ts"] == 600


def test_a_shift_leaves_lines_without_a_time_alone():
    lines, _ = parsed(b'{"type":"item","item_id":"tent"}', b'{"type":"click","user_id":"ada","ts":-5}', shift_ms=7)
    assert [line.value for line in lines] == [b'{"item_id":"tent"}', b'{"user_id":"ada","ts":-5}']


def test_newest_ts_is_the_largest_one_and_none_without_any():
    lines, _ = parsed(CLICK, CLICK.replace(b"1000", b"3000"), CLICK.replace(b"1000", b"2000"))
    assert newest_ts(lines) == 3000
    assert newest_ts([]) is None


@pytest.mark.parametrize(
    "event",
    [
        Click("e1", "ada", "tent", 1000, dwell_ms=5, tags=("a", "b")),
        Purchase("e2", "ada", "tent", 1000, 9.5, "EUR", 2),
        Item("tent", "Tent", ("outdoor",)),
    ],
)
def test_an_encoded_event_comes_back_as_it_was(event):
    (line,), _ = parsed(encode_line(event))
    assert msgspec.json.decode(line.value or b"", type=type(event)) == event


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.text())), st.text(min_size=1))
def test_any_object_keeps_all_its_fields_but_type(fields, user_id):
    given_line = fields | {"type": "click", "user_id": user_id}
    (line,), bad = parsed(json.dumps(given_line).encode())
    assert not bad
    assert json.loads(line.value or b"") == {name: value for name, value in given_line.items() if name != "type"}


@given(st.binary())
def test_no_bytes_make_the_parser_fail(raw):
    lines, bad = parsed(raw)
    assert len(lines) + len(bad) <= 1


@pytest.mark.parametrize("name", ["events.jsonl", "events.jsonl.gz"])
def test_plain_and_zipped_files_read_alike(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(gzip.compress(CLICK * 3) if name.endswith(".gz") else CLICK * 3)
    assert [line.number for line in read(path, pytest.fail)] == [1, 2, 3]


def test_a_cut_off_gzip_file_is_an_error_that_names_it(tmp_path: Path):
    path = tmp_path / "events.jsonl.gz"
    path.write_bytes(gzip.compress(CLICK * 1000)[:-20])
    with pytest.raises(EventFileError, match=r"events\.jsonl\.gz is cut off"):
        list(read(path, pytest.fail))


def test_a_damaged_gzip_file_is_an_error_that_names_it(tmp_path: Path):
    whole = bytearray(gzip.compress(CLICK * 1000))
    whole[-6] ^= 0xFF
    path = tmp_path / "events.jsonl.gz"
    path.write_bytes(whole)
    with pytest.raises(EventFileError, match=r"events\.jsonl\.gz is damaged"):
        list(read(path, pytest.fail))


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path):
    with pytest.raises(EventFileError, match=r"cannot read .*nowhere\.jsonl: No such file"):
        list(read(tmp_path / "nowhere.jsonl", pytest.fail))
