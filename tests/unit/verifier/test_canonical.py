"""Canonical forms: what is equal has one, what differs has two, and frames keep columns apart."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowfault_api.verifier.canonical import canonical, json_text, row_print
from shadowfault_api.verifier.stores.probes import probes_of
from shadowfault_api.verifier.tables import Kind


@pytest.mark.parametrize(
    ("kind", "here", "there", "equal"),
    [
        (Kind.NUMBER, "1.0", "1.00", True),
        (Kind.NUMBER, 100, "1e2", True),
        (Kind.NUMBER, "-0.0", 0, True),
        (Kind.NUMBER, "1", "1_0", False),
        (Kind.NUMBER, "1", " 1", False),
        (Kind.NUMBER, 0.1, "0.1", True),
        (Kind.NUMBER, "3.00", "\u0663.00", False),
        (Kind.NUMBER, "1e9999999999999999999", "1e9999999999999999998", False),
        (Kind.NUMBER, "1e200000000", "1e200000001", False),
        (Kind.NUMBER, "-1e-200000000", "-1e-200000000", True),
        (Kind.DECIMAL, "1.0", "1.00", False),
        (Kind.FLOAT, 0.0, -0.0, False),
        (Kind.FLOAT, 1, 1.0, True),
        (Kind.INTEGER, 1, "1", False),
        (Kind.INTEGER, 1, 2**32, False),
        (Kind.TEXT, "1", 1, False),
        (Kind.TEXT, "a", b"a", False),
        (Kind.TEXT, None, "", False),
        (Kind.BOOLEAN, 1, 2, False),
        (Kind.INSTANT, "2026-01-01 00:00:00", "2026-01-01T01:00:00+01:00", True),
        (Kind.INSTANT, "2026-01-01 00:00:00", "yesterday", False),
        (Kind.TIMESTAMP, "2026-01-01 00:00:00", "2026-01-01T00:00:00", True),
        (Kind.JSON, '{"a":1,"b":2}', '{"b": 2, "a": 1}', True),
        (Kind.JSON, "1", "1.0", False),
        (Kind.JSON, "{", "[", False),
        (Kind.JSON, '{"a": 1e200000000}', '{"a":1e200000000}', False),
        (Kind.JSON, "[" * 100_000, "[" * 100_001, False),
        (Kind.JSON, '{"\\ud800": 1}', '{"\\ud801": 1}', False),
        (Kind.TEXT, "\udc80", "\udc81", False),
        (Kind.UUID, "AB", "ab", True),
    ],
)
def test_equal_values_have_one_form(kind: Kind, here: object, there: object, equal: bool) -> None:
    assert (canonical(kind, here) == canonical(kind, there)) is equal


def test_the_probes_differ_from_each_other() -> None:
    """A pair of equal probes would make the self-test refuse every server."""
    probes = probes_of(frozenset(Kind))
    assert {probe.kind for probe in probes} == set(Kind)
    assert len({(probe.kind, canonical(probe.kind, probe.raw)) for probe in probes}) == len(probes)


FORMS = st.lists(st.none() | st.text("-:1|x", max_size=4), min_size=1, max_size=4)


@given(FORMS, FORMS)
def test_frames_tell_rows_apart(one: list[str | None], other: list[str | None]) -> None:
    assert (row_print(one) == row_print(other)) is (one == other)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_a_json_text_is_the_same_document(document: object) -> None:
    written = json_text(json.dumps(document))
    assert written is not None
    assert json.loads(written) == document
    assert json_text(written) == written
