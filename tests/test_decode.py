"""Every limit on what comes in, with its reason; boundaries exactly; the good go on in order."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.events import KIND_OF_TOPIC, Click, Item, Purchase
from streamer.pipeline.decode import DETAIL_CHARS, Decoded, Limits, decode_events, decode_items
from streamer.pipeline.records import Records
from tests.oracle import Replay
from tests.pipeline_world import DAY_MS, LIMITS, T0, Record, click, purchase

ABSENT = object()
CLICK = {"event_id": "e", "user_id": "ann", "item_id": "mug", "ts": T0}
PURCHASE = {**CLICK, "price": 2.5, "currency": "EUR"}
ITEM = {"item_id": "mug", "title": "Mug", "tags": ["kitchen"]}


def value(base: dict[str, Any], **fields: Any) -> bytes:
    chosen = {name: field for name, field in {**base, **fields}.items() if field is not ABSENT}
    return json.dumps(chosen, ensure_ascii=False).encode()


def decoded(*records: Record, topic: str = "clicks", newest_ts: int = 0, limits: Limits = LIMITS) -> Decoded:
    return decode_events(KIND_OF_TOPIC[topic], Records.of(records), limits, newest_ts)


def event_ids(result: Decoded) -> list[str]:
    return [event_id.decode() for event_id in result.event_ids(np.arange(result.size))]


def reason_of(raw: bytes | None, topic: str = "clicks", key: bytes | None = b"ann") -> str | None:
    """Why a record alone is rejected; None when it is taken in."""
    result = decoded(Record(key, raw), topic=topic)
    assert result.size + len(result.rejected) == 1
    return result.rejected[0].reason if result.rejected else None


def item_reason(raw: bytes | None, key: bytes | None = b"mug") -> str | None:
    changes, rejected = decode_items([Record(key, raw)], LIMITS)
    assert len(changes) + len(rejected) == 1
    return rejected[0].reason if rejected else None


# What is right


@pytest.mark.parametrize(
    ("topic", "fields"),
    [
        ("clicks", {}),
        ("clicks", {"session_id": "s", "dwell_ms": 0, "tags": ["a", "b"]}),
        ("clicks", {"session_id": None, "dwell_ms": None, "tags": []}),
        ("clicks", {"ts": 0}),
        ("clicks", {"dwell_ms": 10**30}),
        ("clicks", {"nobody": {"asked": ["for", None, 1e300]}}),
        ("clicks", {"item_id": " "}),
        ("clicks", {"item_id": "\0"}),
        ("clicks", {"item_id": "é😀 عربي"}),
        ("purchases", {}),
        ("purchases", {"quantity": 1}),
        ("purchases", {"quantity": 10**9}),
        ("purchases", {"price": 0}),
        ("purchases", {"price": -0.0}),
        ("purchases", {"price": 10**12}),
        ("purchases", {"order_id": "o", "session_id": None}),
    ],
)
def test_events_within_the_limits_are_taken_in(topic: str, fields: dict[str, Any]) -> None:
    base = CLICK if topic == "clicks" else PURCHASE
    assert reason_of(value(base, **fields), topic) is None


def test_missing_optional_fields_take_their_defaults() -> None:
    result = decoded(Record(b"ann", value(PURCHASE)), topic="purchases")
    assert (result.columns.micros.tolist(), result.tags) == ([2.5e6], {})


def test_of_a_field_given_twice_the_last_counts() -> None:
    raw = b'{"event_id":"first",' + value(CLICK)[1:]
    assert event_ids(decoded(Record(b"ann", raw))) == ["e"]


def test_escaped_letters_are_the_letters_they_stand_for() -> None:
    raw = value(CLICK).replace(b'"mug"', rb'"m\u00fcg \ud83d\ude00"')
    assert decoded(Record(b"ann", raw)).item_id(0) == "müg 😀"


def test_white_space_and_the_order_of_fields_do_not_matter() -> None:
    raw = json.dumps(dict(reversed(CLICK.items())), indent=4).encode() + b"\r\n"
    result = decoded(Record(b"ann", raw))
    assert (event_ids(result), result.item_id(0), result.ts.tolist()) == (["e"], "mug", [T0])


def test_a_user_may_have_any_name_that_utf8_can_say() -> None:
    name = "Zoë/\0 😀"
    assert reason_of(value(CLICK, user_id=name), key=name.encode()) is None


# What is wrong


@pytest.mark.parametrize(
    "raw",
    [
        None,
        b"",
        b" ",
        b"{",
        b"hello",
        b"\xff\xfe",
        b"\xef\xbb\xbf" + value(CLICK),
        value(CLICK).decode().encode("utf-16"),
        value(CLICK)[:-1],
        value(CLICK) + b"x",
        value(CLICK) * 2,
        value(CLICK).replace(b'"mug"', b"NaN"),
        value(CLICK).replace(b'"mug"', b"'mug'"),
        value(CLICK).replace(b'"mug"', b'"m\xffg"'),
        value(CLICK).replace(b'"mug"', b'"m\xed\xa0\x80g"'),
        value(CLICK).replace(b'"mug"', rb'"\ud800"'),
        value(CLICK).replace(b'"mug"', rb'"\udc00\ud800"'),
        value(CLICK).replace(b'"mug"', b'"m\ng"'),
        value(CLICK)[:-1] + b',"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        value(CLICK, ts="wrong")[:-1],
    ],
    ids=lambda raw: repr(raw)[:24],
)
def test_what_is_not_json_is_malformed(raw: bytes | None) -> None:
    assert reason_of(raw) == "malformed_json"


@pytest.mark.parametrize("name", ["event_id", "user_id", "item_id", "ts", "price", "currency"])
def test_a_field_that_must_be_there_is_missed(name: str) -> None:
    assert reason_of(value(PURCHASE, **{name: ABSENT}), "purchases") == "missing_field"


@pytest.mark.parametrize(
    "fields",
    [
        {"event_id": None},
        {"user_id": 7},
        {"item_id": ["mug"]},
        {"ts": str(T0)},
        {"ts": float(T0)},
        {"ts": True},
        {"ts": None},
        {"quantity": None},
        {"quantity": 1.0},
        {"quantity": "1"},
        {"price": "2.50"},
        {"price": None},
        {"price": True},
        {"currency": None},
        {"currency": 978},
        {"session_id": 5},
        {"order_id": {}},
        {"tags": None},
        {"tags": "kitchen"},
        {"tags": [1]},
        {"tags": [None]},
        {"tags": {"kitchen": 1}},
    ],
    ids=str,
)
def test_a_field_of_another_type_is_wrong(fields: dict[str, Any]) -> None:
    assert reason_of(value(PURCHASE, **fields), "purchases") == "wrong_type"


@pytest.mark.parametrize("raw", [b"null", b"[]", b"5", b'"text"', b"true"])
def test_json_that_is_no_object_is_of_the_wrong_type(raw: bytes) -> None:
    assert reason_of(raw) == "wrong_type"


@pytest.mark.parametrize(
    "fields",
    [
        {"event_id": ""},
        {"user_id": ""},
        {"item_id": ""},
        {"ts": -1},
        {"ts": -(10**30)},
        {"quantity": 0},
        {"quantity": -1},
        {"quantity": 10**9 + 1},
        {"quantity": 10**30},
        {"price": -0.01},
        {"price": -1},
        {"price": 1.000001e12},
        {"price": 10**400},
        {"currency": ""},
        {"currency": "EU"},
        {"currency": "EURO"},
        {"currency": "eur"},
        {"currency": "EU1"},
        {"currency": "ÄÖÜ"},
        {"currency": "EU\n"},
    ],
    ids=lambda fields: str(fields)[:24],
)
def test_a_number_or_text_beyond_its_limits_is_out_of_range(fields: dict[str, Any]) -> None:
    assert reason_of(value(PURCHASE, **fields), "purchases") == "out_of_range"


@pytest.mark.parametrize("number", [b"1e400", b"-1e999", b"9" * 5000])
@pytest.mark.parametrize("field", ["price", "quantity"])
def test_a_number_that_no_computer_number_holds_is_out_of_range(field: str, number: bytes) -> None:
    raw = value(PURCHASE, **{field: ABSENT})[:-1] + b',"' + field.encode() + b'":' + number + b"}"
    assert reason_of(raw, "purchases") == "out_of_range"


def test_negative_dwell_is_out_of_range() -> None:
    assert reason_of(value(CLICK, dwell_ms=-1)) == "out_of_range"


@pytest.mark.parametrize("key", [None, b"", b"Ann", b"ann ", b"bob", b"\xff", "änn".encode("latin-1")])
def test_a_key_that_is_not_the_user_is_a_mismatch(key: bytes | None) -> None:
    assert reason_of(value(CLICK), key=key) == "key_mismatch"


def test_the_key_is_compared_in_utf8() -> None:
    assert reason_of(value(CLICK, user_id="änn"), key="änn".encode("latin-1")) == "key_mismatch"
    assert reason_of(value(CLICK, user_id="änn"), key="änn".encode()) is None


def test_an_event_of_just_the_largest_size_is_taken_in_and_one_byte_more_is_too_large() -> None:
    room = LIMITS.max_event_bytes - len(value(CLICK, session_id=""))
    assert reason_of(value(CLICK, session_id="x" * room)) is None
    assert reason_of(value(CLICK, session_id="x" * (room + 1))) == "too_large"


def test_what_is_too_large_is_not_even_parsed() -> None:
    assert reason_of(b"\0" * (LIMITS.max_event_bytes + 1)) == "too_large"


# Times


@pytest.mark.parametrize(("ahead_ms", "reason"), [(300_000, None), (300_001, "from_the_future"), (-1, None)])
def test_an_event_may_be_ahead_of_its_record_by_the_tolerance_and_no_more(ahead_ms: int, reason: str | None) -> None:
    result = decoded(Record(b"ann", value(CLICK, ts=T0 + ahead_ms), timestamp=T0))
    assert [bad.reason for bad in result.rejected] == ([reason] if reason else [])


@pytest.mark.parametrize("ts", [T0 * 1000, T0 * 1_000_000, 2**43 + 1, 2**64, 10**30])
def test_micro_and_nanoseconds_and_whatever_no_clock_says_are_from_the_future(ts: int) -> None:
    assert reason_of(value(CLICK, ts=ts)) == "from_the_future"
    assert reason_of(value(PURCHASE, ts=ts), "purchases") == "from_the_future"


@pytest.mark.parametrize(("behind_ms", "reason"), [(90 * DAY_MS, None), (90 * DAY_MS + 1, "too_old")])
def test_an_event_may_be_behind_the_newest_by_the_tolerance_and_no_more(behind_ms: int, reason: str | None) -> None:
    result = decoded(Record(b"ann", value(CLICK, ts=T0 - behind_ms), timestamp=T0), newest_ts=T0)
    assert [bad.reason for bad in result.rejected] == ([reason] if reason else [])
    assert result.newest_ts == T0


def test_old_events_are_welcome_while_nothing_newer_was_accepted() -> None:
    result = decoded(Record(b"ann", value(CLICK, ts=5), timestamp=T0))
    assert (result.size, result.newest_ts) == (1, 5)


def test_the_clock_of_a_partition_is_its_newest_accepted_event() -> None:
    late = T0 - 90 * DAY_MS
    result = decoded(click("a", ts=T0), click("b", ts=late), click("c", ts=T0 + 1), click("d", ts=late))
    assert event_ids(result) == ["a", "b", "c"]
    assert result.newest_ts == T0 + 1


def test_a_rejected_event_does_not_move_the_clock() -> None:
    wild = T0 + 10**10
    result = decoded(
        Record(b"ann", value(CLICK, ts=wild), timestamp=T0),
        Record(b"bob", value(CLICK, ts=T0 + 1)),
        Record(b"ann", value(CLICK, ts=-1)),
        click("good", ts=T0 - 90 * DAY_MS),
        newest_ts=T0,
    )
    assert event_ids(result) == ["good"]
    assert result.newest_ts == T0


# Many together


def test_an_empty_take_is_empty() -> None:
    result = decoded(newest_ts=7)
    assert (result.size, result.rejected, result.newest_ts) == (0, [], 7)
    assert decode_items([], LIMITS) == ([], [])


def test_bad_ones_leave_the_good_in_order_and_keep_their_places() -> None:
    records = [
        click("a"),
        Record(b"ann", b"{"),
        click("b"),
        Record(None, value(CLICK)),
        click("c", ts=T0 + 300_001)._replace(timestamp=T0),
        click("d"),
        Record(b"ann", b"x" * 70_000),
    ]
    result = decoded(*records)
    assert event_ids(result) == ["a", "b", "d"]
    assert result.places.tolist() == [0, 2, 5]
    assert result.ts.tolist() == [T0] * 3
    wrong = [(bad.place, bad.reason) for bad in result.rejected]
    assert wrong == [(1, "malformed_json"), (3, "key_mismatch"), (4, "from_the_future"), (6, "too_large")]


def test_a_bad_currency_amid_good_ones_is_found() -> None:
    result = decoded(purchase("a"), purchase("b", currency="eur"), purchase("c"), topic="purchases")
    assert event_ids(result) == ["a", "c"]
    assert result.rejected[0].detail == "currency 'eur' is not an ISO 4217 code (three capital letters)"


def test_details_name_what_is_wrong_and_stay_short() -> None:
    long = "x" * 60_000
    records = [
        Record(long.encode(), value(CLICK, user_id=long[1:])),
        Record(b"ann", value(CLICK, ts=1.5)),
        Record(b"ann", b"{" + long.encode()),
        Record(None, value(CLICK)),
    ]
    details = [bad.detail for bad in decoded(*records).rejected]
    assert all(0 < len(detail) <= DETAIL_CHARS + 100 for detail in details)
    assert details[1] == "Expected `int`, got `float` - at `$.ts`"
    assert details[3] == "no key, user_id is 'ann': the key has to be the user_id in UTF-8"


@given(
    st.lists(
        st.sampled_from(
            [
                value(CLICK),
                value(CLICK, ts=T0 - 100 * DAY_MS),
                value(CLICK, ts=T0 + DAY_MS),
                value(CLICK, ts=T0 + 10**9),
                value(CLICK, user_id="bob"),
                value(CLICK, quantity="?"),
                value(CLICK, ts=0),
                value(CLICK, item_id=""),
                b"{}",
                b"[",
            ]
        ),
        max_size=12,
    ),
    st.sampled_from([0, 1, DAY_MS]),
)
def test_every_record_ends_up_once_and_times_are_judged_as_the_oracle_does(values: list[bytes], ahead_ms: int) -> None:
    records = [Record(b"ann", raw, timestamp=T0 + ahead_ms) for raw in values]
    result, oracle = decoded(*records), Replay({})
    said = dict.fromkeys(result.places.tolist(), "applied") | {bad.place: bad.reason for bad in result.rejected}
    assert sorted(said) == list(range(len(records)))
    assert result.size + len(result.rejected) == len(records)
    for place, record in enumerate(records):
        truth = oracle.apply("clicks", record.key, record.value, record.timestamp, partition=0)
        if truth in ("too_old", "from_the_future"):
            assert said[place] == truth
        else:
            assert (said[place] == "applied") == (truth in ("applied", "duplicate"))


@given(st.binary(max_size=60), st.binary(max_size=5) | st.none())
def test_no_bytes_whatsoever_stop_the_decoding(raw: bytes, key: bytes | None) -> None:
    good = click("good")
    assert event_ids(decoded(good, Record(key, raw)))[:1] == ["good"]
    decode_items([Record(key, raw)], LIMITS)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4))
def test_no_value_of_a_field_stops_the_decoding(field: Any) -> None:
    for name in (*PURCHASE, "quantity", "tags", "session_id"):
        raw = json.dumps({**PURCHASE, name: field}).encode()
        result = decoded(Record(b"ann", raw), topic="purchases")
        assert result.size + len(result.rejected) == 1


# What msgspec says: reasons are read off its words, so those are held still


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"event_id": ABSENT}, "Object missing required field `event_id`"),
        ({"ts": -1}, "Expected `int` >= 0 - at `$.ts`"),
        ({"ts": 2**43 + 1}, "Expected `int` <= 8796093022208 - at `$.ts`"),
        ({"quantity": 0}, "Expected `int` >= 1 - at `$.quantity`"),
        ({"price": -0.01}, "Expected `float` >= 0.0 - at `$.price`"),
        ({"price": 2e12}, "Expected `float` <= 1000000000000.0 - at `$.price`"),
        ({"price": 10**400}, "Number out of range - at `$.price`"),
        ({"item_id": ""}, "Expected `str` of length >= 1 - at `$.item_id`"),
        ({"currency": "EURO"}, "Expected `str` of length <= 3 - at `$.currency`"),
        ({"ts": "1"}, "Expected `int`, got `str` - at `$.ts`"),
        ({"session_id": 1}, "Expected `str | null`, got `int` - at `$.session_id`"),
    ],
    ids=lambda x: str(x)[:24],
)
def test_msgspec_still_says_what_reasons_are_read_off(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(value(PURCHASE, **fields), type=Purchase)
    assert str(caught.value) == message


def test_msgspec_still_names_integers_that_python_will_not_read() -> None:
    raw = value(CLICK, ts=ABSENT)[:-1] + b',"ts":' + b"9" * 5000 + b"}"
    with pytest.raises(msgspec.ValidationError, match=r"^Integer value out of range"):
        msgspec.json.decode(raw, type=Click)


# Items


def test_items_come_and_go_in_order() -> None:
    records = [Record(b"mug", value(ITEM)), Record(b"mug", None), Record(b"mug", value(ITEM, title="New"))]
    changes, rejected = decode_items(records, LIMITS)
    first, new = Item("mug", "Mug", ("kitchen",)), Item("mug", "New", ("kitchen",))
    assert changes == [("mug", first), ("mug", None), ("mug", new)]
    assert rejected == []


@pytest.mark.parametrize(
    ("raw", "key", "reason"),
    [
        (value(ITEM), b"mug", None),
        (value(ITEM, category="a/b/c", price=0, currency="EUR", colour="red"), b"mug", None),
        (value(ITEM, title="", tags=[]), b"mug", None),
        (None, b"mug", None),
        (None, "Bücher".encode(), None),
        (None, None, "key_mismatch"),
        (None, b"", "key_mismatch"),
        (None, b"\xff", "key_mismatch"),
        (value(ITEM), None, "key_mismatch"),
        (value(ITEM), b"cup", "key_mismatch"),
        (value(ITEM, item_id=""), b"", "out_of_range"),
        (value(ITEM, price=-0.01), b"mug", "out_of_range"),
        (value(ITEM, currency="eur"), b"mug", "out_of_range"),
        (value(ITEM, title=ABSENT), b"mug", "missing_field"),
        (value(ITEM, tags=ABSENT), b"mug", "missing_field"),
        (value(ITEM, tags="kitchen"), b"mug", "wrong_type"),
        (b"", b"mug", "malformed_json"),
        (b"x" * 70_000, b"mug", "too_large"),
    ],
    ids=lambda x: str(x)[:24],
)
def test_items_have_their_limits(raw: bytes | None, key: bytes | None, reason: str | None) -> None:
    assert item_reason(raw, key) == reason


def test_bad_items_keep_their_places_amid_deletions() -> None:
    records = [Record(b"a", None), Record(b"mug", b"{"), Record(b"mug", value(ITEM)), Record(None, None)]
    changes, rejected = decode_items(records, LIMITS)
    assert [item_id for item_id, _ in changes] == ["a", "mug"]
    assert [(bad.place, bad.reason) for bad in rejected] == [(1, "malformed_json"), (3, "key_mismatch")]
