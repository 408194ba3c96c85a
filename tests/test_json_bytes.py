"""JSON written by kernels, against the standard library reading it back."""

import base64
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamer.pipeline.json_bytes import (
    ESCAPED_BYTES,
    NUMBER_BYTES,
    Quoted,
    put,
    put_base64,
    put_decimal,
    put_integer,
    put_quoted,
    put_text,
)


def written(room: int, write: Callable[..., int], *what: Any) -> str:
    """What a `put_*` wrote, given just so much room at an odd place; nothing around that may change."""
    out = np.full(room + 5, ord("!"), np.uint8)
    end = write(out, 3, *what)
    assert end <= room + 3
    assert set(out[:3].tolist()) | set(out[room + 3 :].tolist()) == {ord("!")}
    return out[3:end].tobytes().decode()


def as_bytes(text: str) -> Any:
    return np.frombuffer(text.encode(), np.uint8)


@given(st.integers(-(2**63) + 1, 2**63 - 1))
@example(10**18)
@example(10**18 - 1)
def test_integers_are_written_whole(number: int) -> None:
    assert written(NUMBER_BYTES, put_integer, number) == str(number)


@given(st.floats(-1e9, 1e9), st.integers(1, 6))
@example(0.9999999, 6)
@example(-0.0, 3)
@example(5e-7, 6)
def test_decimals_are_rounded_as_numpy_does(number: float, places: int) -> None:
    text = written(NUMBER_BYTES, put_decimal, number, places)
    assert float(text) == pytest.approx(float(np.round(number, places)), abs=0.5001 * 10**-places, rel=0)
    assert 1 <= len(text.partition(".")[2]) <= places


def test_large_sums_keep_the_decimals_that_a_float_has() -> None:
    sums = [8_999_999_999.25, 9_000_000_000.25, 123_456_789_012.75, 99_999_999_999_999.5, 999_999_999_999_999.0]
    assert [json.loads(written(NUMBER_BYTES, put_decimal, each, 6)) for each in sums] == sums


@given(st.floats(1e9, 1e300), st.integers(1, 6))
@example(9.99e14, 6)
@example(1e15, 6)
def test_huge_numbers_keep_their_first_fifteen_digits(number: float, places: int) -> None:
    assert math.isclose(json.loads(written(NUMBER_BYTES + 300, put_decimal, number, places)), number, rel_tol=1e-14)


@given(st.text())
@example('"\\\n\x00\x1f')
def test_text_is_escaped(text: str) -> None:
    raw = as_bytes(text)
    assert json.loads(written(ESCAPED_BYTES * len(raw) + 2, put_text, raw)) == text


@given(st.binary(max_size=40))
def test_bytes_become_base64(raw: bytes) -> None:
    text = written(2 * len(raw) + 6, put_base64, np.frombuffer(raw, np.uint8))
    assert json.loads(text) == base64.b64encode(raw).decode()


@given(st.lists(st.text(), min_size=1, max_size=100))
def test_strings_of_a_collection_are_found_by_number(texts: list[str]) -> None:
    quoted = Quoted(*texts)
    assert len(quoted) == len(texts)
    found = [json.loads(written(quoted.longest, put_quoted, quoted.data, quoted.at, i)) for i in range(len(texts))]
    assert found == texts


def test_a_collection_grows_as_long_as_it_has_to() -> None:
    quoted = Quoted()
    for i in range(1000):
        quoted.append("x" * (i % 300))
    assert json.loads(written(302, put_quoted, quoted.data, quoted.at, 599)) == "x" * 299


def test_raw_bytes_are_copied() -> None:
    assert written(4, put, as_bytes('{"a"')) == '{"a"'
