"""Text in kernels: 64-bit words of a byte array, and the hash xxh3 over them, the same as `hashing.hash_id`.

Reading eight bytes at a place, the place of the first set bit and the 128-bit product have no names in numba: they are
LLVM's, one instruction each. A byte array has SPARE bytes behind its text, so that a word may begin at its last byte.

Reference: Y. Collet's xxHash, doc/xxhash_spec.md, XXH3 of 64 bits with seed 0 and its default secret.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from streamer.model.compiled import leaf

SPARE: Final = 8
LONGEST: Final = 240  # bytes: beyond it xxh3 takes another way

_WORD, _WIDE = ir.IntType(64), ir.IntType(128)
_SECRET = bytes.fromhex(  # the part of it that texts of up to LONGEST bytes need
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3"
)
_secret = np.frombuffer(_SECRET + bytes(SPARE), np.uint8)
_P1, _P2, _P3 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
_MIX_1, _MIX_2 = np.uint64(0x165667919E3779F9), np.uint64(0x9FB21C651E98DF25)


def _instruction(function: Callable[..., Any]) -> Any:
    """An `intrinsic`, called in kernels without the typing context that its definition takes first."""
    return intrinsic(function)


@_instruction
def word_at(typing: Any, text: Any, place: Any) -> Any:
    """The eight bytes of u8[…] from a place ≥ 0 on, the first the lowest. Looks at no bounds."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        at = builder.gep(array.data, [builder.sext(args[1], _WORD) if args[1].type.width < 64 else args[1]])
        word = builder.load(builder.bitcast(at, _WORD.as_pointer()))
        word.align = 1
        return word

    return types.uint64(text, place), generate


@_instruction
def lowest_bit(typing: Any, word: Any) -> Any:
    """The place of the lowest set bit of a word that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@_instruction
def _folded_product(typing: Any, a: Any, b: Any) -> Any:
    """Both halves of the 128 bits of a · b, one xor the other."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        product = builder.mul(*(builder.zext(arg, _WIDE) for arg in args))
        high = builder.lshr(product, ir.Constant(_WIDE, 64))
        return builder.xor(builder.trunc(product, _WORD), builder.trunc(high, _WORD))

    return types.uint64(types.uint64, types.uint64), generate


@_instruction
def _swapped(typing: Any, word: Any) -> Any:
    """A word with its bytes in reverse."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bswap(args[0])

    return types.uint64(types.uint64), generate


@leaf
def half_word_at(text, place):  # type: ignore[no-untyped-def]
    """The four bytes from a place on."""
    return word_at(text, place) & np.uint64(0xFFFFFFFF)


@leaf
def first_bytes(text, place, n):  # type: ignore[no-untyped-def]
    """The first n ≤ 8 bytes from a place on, zeros behind them."""
    word = word_at(text, place)
    return word if n >= 8 else word & ((np.uint64(1) << np.uint64(8 * n)) - np.uint64(1))


@leaf
def equal(text, one, other, n):  # type: ignore[no-untyped-def]
    """Whether n bytes of u8[…] from one place on are those from another on."""
    while n > 0:
        if first_bytes(text, one, n) != first_bytes(text, other, n):
            return False
        one, other, n = one + 8, other + 8, n - 8
    return True


@leaf
def hash_text(text, at, n):  # type: ignore[no-untyped-def]
    """`hashing.hash_id` of the n bytes of u8[…] from `at` on, 1 ≤ n ≤ LONGEST."""
    if n > 16:
        h = _long(text, at, n)
    elif n > 8:
        low = word_at(text, at) ^ word_at(_secret, 24) ^ word_at(_secret, 32)
        high = word_at(text, at + n - 8) ^ word_at(_secret, 40) ^ word_at(_secret, 48)
        h = _avalanche(np.uint64(n) + _swapped(low) + high + _folded_product(low, high))
    elif n > 3:
        h = half_word_at(text, at + n - 4) + (half_word_at(text, at) << np.uint64(32))
        h ^= word_at(_secret, 8) ^ word_at(_secret, 16)
        h ^= _rotated(h, 49) ^ _rotated(h, 24)
        h *= _MIX_2
        h ^= (h >> np.uint64(35)) + np.uint64(n)
        h *= _MIX_2
        h ^= h >> np.uint64(28)
    else:
        first, middle, last = np.uint64(text[at]), np.uint64(text[at + (n >> 1)]), np.uint64(text[at + n - 1])
        h = first << np.uint64(16) | middle << np.uint64(24) | last | np.uint64(n) << np.uint64(8)
        h ^= half_word_at(_secret, 0) ^ half_word_at(_secret, 4)
        h = (h ^ h >> np.uint64(33)) * _P2
        h = (h ^ h >> np.uint64(29)) * _P3
        h ^= h >> np.uint64(32)
    return max(h, np.uint64(1))


@leaf
def _long(text, at, n):  # type: ignore[no-untyped-def]
    h = np.uint64(n) * _P1
    if n <= 128:
        for i in range((n - 1) // 32, -1, -1):
            h += _mixed(text, at + 16 * i, 32 * i) + _mixed(text, at + n - 16 * (i + 1), 32 * i + 16)
        return _avalanche(h)
    for i in range(8):
        h += _mixed(text, at + 16 * i, 16 * i)
    h = _avalanche(h)
    for i in range(8, n // 16):
        h += _mixed(text, at + 16 * i, 16 * (i - 8) + 3)
    return _avalanche(h + _mixed(text, at + n - 16, 119))


@leaf
def _mixed(text, at, secret):  # type: ignore[no-untyped-def]
    return _folded_product(
        word_at(text, at) ^ word_at(_secret, secret), word_at(text, at + 8) ^ word_at(_secret, secret + 8)
    )


@leaf
def _avalanche(h):  # type: ignore[no-untyped-def]
    h = (h ^ h >> np.uint64(37)) * _MIX_1
    return h ^ h >> np.uint64(32)


@leaf
def _rotated(h, bits):  # type: ignore[no-untyped-def]
    return h << np.uint64(bits) | h >> np.uint64(64 - bits)
