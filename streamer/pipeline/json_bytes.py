"""JSON written by compiled code: kernels put numbers and ready-made strings into a byte buffer.

Every `put_*` writes at `at` into `out` u8[…], which has to have room, and returns where it ended. Strings are kept
quoted in a `Quoted`, so that a kernel only copies them.

>>> out = np.zeros(32, np.uint8)
>>> out[: put_decimal(out, 0, -1.25, 3)].tobytes(), out[: put_integer(out, 0, -7)].tobytes()
(b'-1.25', b'-7')
"""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.model.compiled import leaf

NUMBER_BYTES: Final = 32  # no number is written longer
ESCAPED_BYTES: Final = 6  # what one byte of text becomes at most
_EXACT: Final = 1e15  # from here on a float64 has no decimals worth writing

_quote = msgspec.json.Encoder().encode


class Quoted:
    """Strings as JSON, end to end: string i is `data[at[i] : at[i + 1]]`."""

    def __init__(self, *texts: str) -> None:
        self.data: NDArray[np.uint8] = np.zeros(1024, np.uint8)
        self.at: NDArray[np.int64] = np.zeros(64, np.int64)
        self.longest = self._count = 0
        for text in texts:
            self.append(text)

    def __len__(self) -> int:
        return self._count

    def append(self, text: str) -> None:
        """Add a string behind the others."""
        raw = _quote(text)
        start = int(self.at[self._count])
        end = start + len(raw)
        if end > len(self.data):
            self.data = np.concatenate([self.data, np.zeros(max(len(raw), len(self.data)), np.uint8)])
        if self._count + 2 > len(self.at):
            self.at = np.concatenate([self.at, np.zeros_like(self.at)])
        self.data[start:end] = np.frombuffer(raw, np.uint8)
        self._count += 1
        self.at[self._count] = end
        self.longest = max(self.longest, len(raw))


def literal(text: str) -> NDArray[np.uint8]:
    """Bytes that a kernel can `put`."""
    return np.frombuffer(text.encode(), np.uint8)


@leaf
def put(out, at, raw):  # type: ignore[no-untyped-def]
    """Bytes as they are."""
    for i in range(len(raw)):
        out[at + i] = raw[i]
    return at + len(raw)


@leaf
def put_quoted(out, at, data, data_at, which):  # type: ignore[no-untyped-def]
    """One string of a `Quoted`."""
    start, end = data_at[which], data_at[which + 1]
    for i in range(start, end):
        out[at + i - start] = data[i]
    return at + end - start


@leaf
def put_text(out, at, raw):  # type: ignore[no-untyped-def]
    """UTF-8 text as a JSON string."""
    out[at] = ord('"')
    at += 1
    for i in range(len(raw)):
        if raw[i] == ord('"') or raw[i] == ord("\\"):
            out[at] = ord("\\")
            at += 1
        if raw[i] < 0x20:
            at = _put_control(out, at, raw[i])
        else:
            out[at] = raw[i]
            at += 1
    out[at] = ord('"')
    return at + 1


@leaf
def _put_control(out, at, byte):  # type: ignore[no-untyped-def]
    r"""A control character as \u00XX."""
    out[at], out[at + 1], out[at + 2], out[at + 3] = ord("\\"), ord("u"), ord("0"), ord("0")
    out[at + 4] = ord("0") + (byte >> 4)
    low = byte & 15
    out[at + 5] = ord("0") + low if low < 10 else ord("a") + low - 10
    return at + 6


_PAIRS: Final = literal("".join(f"{pair:02}" for pair in range(100)))  # two digits a division


@leaf
def put_integer(out, at, number):  # type: ignore[no-untyped-def]
    """A whole number, i64."""
    if number < 0:
        out[at] = ord("-")
        return _put_digits(out, at + 1, np.uint64(-number))
    return _put_digits(out, at, np.uint64(number))


@leaf
def _put_digits(out, at, left):  # type: ignore[no-untyped-def]
    """A u64: unsigned division is the faster one, and never wraps an index."""
    digits = 1
    power = np.uint64(10)
    while digits < 19 and left >= power:
        digits += 1
        power *= np.uint64(10)
    i = at + digits
    while left >= np.uint64(10):
        pair = np.uint64(2) * (left % np.uint64(100))
        left //= np.uint64(100)
        i -= 2
        out[i] = _PAIRS[pair]
        out[i + 1] = _PAIRS[pair + np.uint64(1)]
    if i > at:
        out[at] = np.uint64(ord("0")) + left
    return at + digits


@leaf
def put_decimal(out, at, number, places):  # type: ignore[no-untyped-def]
    """A finite number rounded to `places` decimals, at least one and none too many; huge ones with an exponent.

    Beyond 16 digits in all there are fewer decimals: a float64 has no more.
    """
    if number < 0:
        out[at] = ord("-")
        at += 1
        number = -number
    exponent = 0
    while number >= _EXACT:
        number /= 10.0
        exponent += 1
    while places > 1 and number * _POWERS[places] >= 9 * _EXACT:
        places -= 1
    one = _POWERS[places]
    if number * one < 9 * _EXACT:
        scaled = np.uint64(np.rint(number * one))
        at = _put_fraction(out, _put_digits(out, at, scaled // one), scaled % one, places)
    else:
        at = _put_fraction(out, _put_digits(out, at, np.uint64(np.rint(number))), np.uint64(0), places)
    if exponent:
        out[at] = ord("e")
        at = put_integer(out, at + 1, exponent)
    return at


_POWERS: Final = np.array([10**n for n in range(10)], np.uint64)


@leaf
def _put_fraction(out, at, scaled, places):  # type: ignore[no-untyped-def]
    out[at] = ord(".")
    for i in range(at + places, at, -1):
        out[i] = np.uint64(ord("0")) + scaled % np.uint64(10)
        scaled //= np.uint64(10)
    end = at + places
    while end > at + 1 and out[end] == ord("0"):
        end -= 1
    return end + 1


_BASE64: Final = literal("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")


@leaf
def put_base64(out, at, raw):  # type: ignore[no-untyped-def]
    """Bytes as a JSON string in base64, padded (RFC 4648, section 4)."""
    out[at] = ord('"')
    at += 1
    for i in range(0, len(raw), 3):
        left = min(len(raw) - i, 3)
        word = np.int64(raw[i]) << 16
        if left > 1:
            word |= np.int64(raw[i + 1]) << 8
        if left > 2:
            word |= np.int64(raw[i + 2])
        for k in range(4):
            out[at + k] = _BASE64[(word >> (18 - 6 * k)) & 63] if k <= left else ord("=")
        at += 4
    out[at] = ord('"')
    return at + 1
