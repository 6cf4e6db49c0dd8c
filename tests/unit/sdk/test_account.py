"""The answer of POST /chaos/account: what is written can be read, and anything else is an error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowfault.account import Account, AccountError, parse_account

COUNTS = st.integers(0, 2**53 - 1)
GOOD: dict[str, Any] = Account("uid-1", 3, 4, {"missing_in_shadow": 3}, 3, 0, 0, 100).document()


@given(
    st.builds(
        Account,
        st.just("uid-1"),
        COUNTS,
        COUNTS,
        st.dictionaries(st.from_regex(r"[a-z][a-z_]{0,20}", fullmatch=True), COUNTS, max_size=5),
        COUNTS,
        COUNTS,
        st.none() | COUNTS,
        st.none() | COUNTS,
    )
)
def test_what_is_written_is_read(account: Account) -> None:
    assert parse_account(json.loads(json.dumps(account.document())), "uid-1") == account


def test_the_names_are_those_of_the_contract() -> None:
    assert GOOD == {
        "state": "complete",
        "experimentUid": "uid-1",
        "injected": 3,
        "shadowFailures": 4,
        "discrepancies": {"missing_in_shadow": 3},
        "explained": 3,
        "unexplained": 0,
        "primaryErrors": 0,
        "primaryRequests": 100,
    }


def test_in_the_making_is_none() -> None:
    assert parse_account({"state": "verifying"}, "uid-1") is None


@pytest.mark.parametrize(
    "wrong",
    [
        *(None, [], "complete", 3, {}),
        GOOD | {"state": "done"},
        GOOD | {"experimentUid": "uid-2"},
        GOOD | {"injected": None},
        GOOD | {"injected": -1},
        GOOD | {"injected": True},
        GOOD | {"injected": 1.5},
        GOOD | {"injected": 2**53},
        GOOD | {"unexplained": "0"},
        GOOD | {"primaryErrors": "none"},
        GOOD | {"discrepancies": None},
        GOOD | {"discrepancies": [1]},
        GOOD | {"discrepancies": {"Jane Doe": 1}},
        GOOD | {"discrepancies": {"missing_in_shadow": "1"}},
        GOOD | {"discrepancies": {f"type_{number}": 1 for number in range(33)}},
    ],
)
def test_anything_else_is_an_error_that_quotes_nothing(wrong: object) -> None:
    with pytest.raises(AccountError) as caught:
        parse_account(wrong, "uid-1")
    assert "Jane" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(GOOD)), JSON))
def test_no_document_breaks_the_reader(changes: dict[str, Any]) -> None:
    try:
        account = parse_account(GOOD | changes, "uid-1")
    except AccountError:
        return
    assert account is None or parse_account(account.document(), "uid-1") == account
