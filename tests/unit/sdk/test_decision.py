"""The draw: the same everywhere, fair, and monotone in the rate."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shadowfault

PATTERN = "..xxx.x.x.xx..x.....x..xx.xx..x..x.xxx.x"
FIRST = 0.16547931425672469
BY_REQUEST = 0.2354404563152992

seeds = st.text(min_size=1, max_size=100)
names = st.text(max_size=12)
call_keys = st.integers(0, 2**63) | st.text(max_size=40)


def independently(seed: str, entity_type: str, operation: str, key: int | str, attempt: int) -> float:
    """The documented construction once more, step by step."""
    secret = seed.encode()
    if len(secret) > 64:
        secret = hashlib.blake2b(secret).digest()
    mark = "n" if isinstance(key, int) else "r"
    message = f"{len(entity_type)}:{entity_type}{len(operation)}:{operation}{attempt}:{mark}{key}"
    digest = hashlib.blake2b(message.encode(), digest_size=8, key=secret).digest()
    return math.ldexp(int.from_bytes(digest, "big") >> 11, -53)


@given(seeds, names, names, call_keys, st.integers(0, 9))
def test_the_draw_is_the_documented_hash(
    seed: str, entity: str, operation: str, key: int | str, attempt: int
) -> None:
    drawn = shadowfault.draw(seed, entity, operation, key, attempt)
    assert drawn == independently(seed, entity, operation, key, attempt)
    assert 0.0 <= drawn < 1.0


def test_known_draws_never_change() -> None:
    """A pattern that someone noted with its seed must come back in every later version."""
    assert (
        "".join("x" if fails else "." for fails in shadowfault.plan("my-test-run-123", 0.3, "create", 40))
        == PATTERN
    )
    assert shadowfault.draw("test-run-1", "Listing", "create", 0, 0) == FIRST
    assert shadowfault.draw("test-run-1", "Listing", "create", "req-1", 0) == BY_REQUEST


def test_everything_that_names_an_operation_matters() -> None:
    keys: tuple[int | str, ...] = (0, 1, "0", "1")
    drawn = {
        shadowfault.draw(seed, entity, operation, key, attempt)
        for seed, entity, operation, attempt in product(
            "ab", ("Listing", "User"), ("create", "delete"), (0, 1)
        )
        for key in keys
    }
    assert len(drawn) == 64


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c", 1, 0), ("a", "bc", 1, 0)),
        (("a", "b1", 1, 0), ("a", "b", 11, 0)),
        (("a", "b", "1", 11), ("a", "b", "11", 1)),
        (("a", "b", 7, 0), ("a", "b", "7", 0)),
    ],
)
def test_parts_do_not_run_together(one: tuple[str, str, int, int], other: tuple[str, str, int, int]) -> None:
    assert shadowfault.draw("s", *one) != shadowfault.draw("s", *other)


@given(seeds, names, call_keys, st.floats(0, 1), st.floats(0, 1))
def test_faults_at_a_rate_are_among_those_at_a_higher_one(
    seed: str, operation: str, key: int | str, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    drawn = shadowfault.draw(seed, "Listing", operation, key, 0)
    assert not drawn < low or drawn < high


@given(seeds, st.floats(0, 1), st.floats(0, 1))
def test_a_plan_is_contained_in_the_plan_of_a_higher_rate(seed: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    plans = zip(
        shadowfault.plan(seed, low, "create", 50), shadowfault.plan(seed, high, "create", 50), strict=True
    )
    assert all(more for less, more in plans if less)


def test_rate_zero_never_fails_and_rate_one_always_does() -> None:
    assert not any(shadowfault.plan("s", 0.0, "create", 1000))
    assert all(shadowfault.plan("s", 1.0, "create", 1000))


def test_the_share_is_the_rate() -> None:
    """Fixed seeds, so not a matter of luck: each within five standard deviations."""
    for seed, rate in product(("a", "b", "c"), (0.05, 0.1, 0.5, 0.9)):
        faults = sum(shadowfault.plan(seed, rate, "create", 20_000))
        assert abs(faults - 20_000 * rate) < 5 * math.sqrt(20_000 * rate * (1 - rate))


def test_another_process_draws_the_same() -> None:
    program = "import shadowfault; print(list(shadowfault.plan('s', 0.5, 'create', 64)))"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == str(list(shadowfault.plan("s", 0.5, "create", 64)))


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan, math.inf])
def test_a_plan_of_an_impossible_rate_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate must be between 0 and 1"):
        shadowfault.plan("s", rate, "create", 1)


def test_a_plan_of_less_than_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="count must not be negative"):
        shadowfault.plan("s", 0.5, "create", -1)


def test_a_seed_that_is_not_utf8_still_works() -> None:
    seed = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert 0.0 <= shadowfault.draw(seed, "Listing", "create", 0, 0) < 1.0
