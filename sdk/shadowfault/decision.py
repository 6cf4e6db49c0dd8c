"""The decision whether one operation fails: a keyed hash, never a shared random stream.

A stream would hand its numbers out in the order threads happen to ask. A hash of what is being decided
gives the same answer in any order, in any process and on any replica.

The construction, for re-implementation elsewhere: BLAKE2b (RFC 7693) with an 8 byte digest, keyed with
the UTF-8 bytes of the seed (a seed over 64 bytes is first reduced to its unkeyed 64 byte BLAKE2b digest).
The message is `"<len>:<entity_type><len>:<operation><attempt>:<n|r><key>"` in UTF-8, lengths in
characters; `n` marks a call number and `r` a request id, so that call 7 and request "7" differ. The digest
is read big-endian and its upper 53 bits, divided by 2**53, are the draw.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIGEST_BYTES: Final = 8
_MANTISSA_BITS: Final = 53
_SHIFT: Final = _DIGEST_BYTES * 8 - _MANTISSA_BITS
_UNIT: Final = 2.0**-_MANTISSA_BITS

DEFAULT_ENTITY_TYPE: Final = "Listing"


class State(Protocol):
    """A hash in progress, as hashlib has them."""

    def copy(self) -> State: ...
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class Drawer(Protocol):
    """A draw for one (seed, entity type, operation)."""

    def __call__(self, key: int | str, attempt: int = 0) -> float:
        """The draw in [0, 1) for this call number or request id, and this attempt (0 is the first)."""
        ...


def prepared(seed: str, entity_type: str, operation: str) -> State:
    """Hash what does not change from call to call; what follows in the message is up to the caller."""
    # surrogatepass: an environment variable that is not UTF-8 reaches Python as lone surrogates.
    key_bytes = seed.encode("utf-8", "surrogatepass")
    if len(key_bytes) > hashlib.blake2b.MAX_KEY_SIZE:
        key_bytes = hashlib.blake2b(key_bytes).digest()
    prefix = f"{len(entity_type)}:{entity_type}{len(operation)}:{operation}"
    return hashlib.blake2b(prefix.encode("utf-8", "surrogatepass"), key=key_bytes, digest_size=_DIGEST_BYTES)


def threshold(rate: float) -> bytes:
    """Return the bytes a digest must sort below to fail at `rate`: the same decision without arithmetic.

    A draw is `(digest >> 11) / 2**53`, and a product with a power of two is exact: `draw < rate` if, and only
    if, `digest < ceil(rate * 2**53) << 11`. For rate 1 that needs a 65th bit; a longer text sorts after.
    """
    limit: int = math.ceil(math.ldexp(rate, _MANTISSA_BITS)) << _SHIFT
    if limit >> (_DIGEST_BYTES * 8):
        return b"\xff" * (_DIGEST_BYTES + 1)
    return limit.to_bytes(_DIGEST_BYTES, "big")


def drawer(seed: str, entity_type: str, operation: str) -> Drawer:
    """Prepare draws for one kind of operation; what does not change per call is hashed only once."""
    copy = prepared(seed, entity_type, operation).copy

    def draw_one(key: int | str, attempt: int = 0) -> float:
        state = copy()
        state.update(message(key, attempt))
        return (int.from_bytes(state.digest(), "big") >> _SHIFT) * _UNIT

    return draw_one


def message(key: int | str, attempt: int) -> bytes:
    """Return what the hash of one decision ends with."""
    mark = "n" if isinstance(key, int) else "r"
    return f"{attempt}:{mark}{key}".encode("utf-8", "surrogatepass")


_cached_drawer = lru_cache(maxsize=256)(drawer)


def draw(seed: str, entity_type: str, operation: str, key: int | str, attempt: int = 0) -> float:
    """The draw in [0, 1) that decides one operation; it fails if, and only if, the draw is below the rate.

    `key` is the call's number per (entity_type, operation), counted from 0, or the request's id. The rate
    is no part of the draw, so the faults at one rate are among those at any higher rate.
    """
    return _cached_drawer(seed, entity_type, operation)(key, attempt)


def plan(
    seed: str, rate: float, operation: str, count: int, entity_type: str = DEFAULT_ENTITY_TYPE
) -> Iterator[bool]:
    """Tell in advance which of the first `count` calls fail: one bool each, for n = 0 .. count-1.

    Holds for one process whose callers send no request id, first attempts.

    Raises:
        ValueError: `rate` is not between 0 and 1, or `count` is negative.
    """
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"rate must be between 0 and 1, got {rate}")
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    draw_one = drawer(seed, entity_type, operation)
    return (draw_one(n) < rate for n in range(count))
