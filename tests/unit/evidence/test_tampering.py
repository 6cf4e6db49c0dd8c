"""Any single change of an export is found, and what is named is what was changed.

The program under docs/examples, written from the documentation alone, looks at each export too: a second
opinion on the format.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from shadowfault_api.evidence.document import NotAnExportError, verify_lines
from shadowfault_api.evidence.signing import Signer, Verifier, key_id
from shadowfault_api.evidence.verification import Expectations
from shadowfault_testing.evidence import EXAMPLE, Known, exported, intact_by_the_example

if TYPE_CHECKING:
    from pathlib import Path

    from shadowfault_api.evidence.report import Report

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY_ID = key_id(KEY.public_key())
SIGNER = Signer(KEY, KEY_ID)
PUBLIC = Expectations(keys=(Verifier(KEY.public_key(), KEY_ID),))

BATCHES = st.lists(st.integers(1, 5), min_size=1, max_size=5)
SIGNERS = st.sampled_from([None, SIGNER])


def verified(lines: list[str], expectations: Expectations | None = None) -> Report:
    expected = expectations or Expectations()
    report = verify_lines(lines, expected)
    second = intact_by_the_example(lines, expected.heads)
    # It knows no keys and no number to reach.
    assert second == report.intact or (second and bool(expected.keys or expected.at_least))
    return report


def seal_of(lines: list[str], position: int) -> int | None:
    """The seal a line belongs to."""
    for line in reversed(lines[: position + 1]):
        parsed = json.loads(line)
        if parsed["type"] == "seal":
            return int(parsed["number"])
    return None


def named(report: Report, lines: list[str], *positions: int) -> bool:
    """Whether a finding names one of these lines: its record, its seal, the one that follows, its number."""
    for position in positions:
        line = json.loads(lines[position])
        seal = seal_of(lines, position)
        record = line["record"]["id"] if line["type"] == "record" else None
        for finding in report.findings:
            if finding.message.startswith(f"line {position + 1} "):
                return True
            if record is not None and finding.record == record:
                return True
            if seal is not None and finding.seal in {seal, seal + 1}:
                return True
    return False


@given(BATCHES, SIGNERS)
def test_what_nobody_touched_is_intact(batches: list[int], signer: Signer | None) -> None:
    report = verified(exported(batches, signer), PUBLIC if signer else None)
    assert report.findings == []
    assert (report.seals, report.records) == (len(batches), sum(batches))
    assert (report.signed, report.unsigned) == ((len(batches), 0) if signer else (0, len(batches)))


def leaves_of(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to every value of a JSON document."""
    if isinstance(document, dict):
        return [found for name, value in document.items() for found in leaves_of(value, (*path, name))]
    return [path]


def changed(value: Any, data: st.DataObject) -> Any:
    """Another value, of the same type or not."""
    others: st.SearchStrategy[Any] = st.none() | st.integers(-3, 2**60) | st.text(max_size=5) | st.booleans()
    if isinstance(value, str) and value:
        at = data.draw(st.integers(0, len(value) - 1))
        other = "0" if value[at] != "0" else "1"
        others |= st.sampled_from([value[:at] + other + value[at + 1 :], value[:at] + value[at + 1 :]])
    return data.draw(others.filter(lambda other: type(other) is not type(value) or other != value))


@given(BATCHES, SIGNERS, st.data())
def test_a_changed_value_is_found_and_named(batches: list[int], signer: Signer | None, data: Any) -> None:
    lines = exported(batches, signer)
    position = data.draw(st.integers(1, len(lines) - 2))
    document = json.loads(lines[position])
    path = data.draw(st.sampled_from(leaves_of(document)))
    holder = document
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = changed(holder[path[-1]], data)
    edited = [*lines[:position], json.dumps(document) + "\n", *lines[position + 1 :]]
    # A signature is over the head and not part of it: one digit of it is missed by nothing but its key.
    report = verified(edited, PUBLIC if signer else None)
    assert not report.intact
    assert named(report, lines, position)


@given(BATCHES, SIGNERS, st.data())
def test_a_removed_line_is_found_and_named(batches: list[int], signer: Signer | None, data: Any) -> None:
    lines = exported(batches, signer)
    position = data.draw(st.integers(1, len(lines) - 2))
    report = verified([*lines[:position], *lines[position + 1 :]])
    assert not report.intact
    assert named(report, lines, position) or any(finding.record for finding in report.findings)


@given(BATCHES, st.data())
def test_a_removed_seal_with_its_records_is_found_and_named(batches: list[int], data: Any) -> None:
    lines = exported(batches)
    number = data.draw(st.integers(1, len(batches)))
    kept = [
        line for at, line in enumerate(lines) if at in {0, len(lines) - 1} or seal_of(lines, at) != number
    ]
    report = verified(kept)
    assert not report.intact
    # The newest one leaves no gap: the end of the file tells, and where that is adjusted, an anchor.
    assert number == len(batches) or number in {finding.seal for finding in report.findings}


@given(BATCHES, SIGNERS, st.data())
def test_an_inserted_line_is_found_and_named(batches: list[int], signer: Signer | None, data: Any) -> None:
    lines = exported(batches, signer)
    position = data.draw(st.integers(2, len(lines) - 1))
    foreign = json.loads(exported([1])[2])
    row = Known(1000).row()
    foreign["record"]["id"], foreign["index"] = row["id"], data.draw(st.integers(0, 6))
    copy = data.draw(st.sampled_from([*lines[1:-1], json.dumps(foreign) + "\n"]))
    report = verified([*lines[:position], copy, *lines[position:]])
    assert not report.intact
    inserted = json.loads(copy)
    names = {finding.record for finding in report.findings} | {finding.seal for finding in report.findings}
    assert names & {
        inserted.get("number"),
        (inserted.get("number") or 0) + 1,
        inserted.get("record", {}).get("id"),
        seal_of(lines, position - 1),
    } - {None}


@given(BATCHES.filter(lambda sizes: sum(sizes) > 1), SIGNERS, st.data())
def test_two_lines_in_each_others_place_are_found_and_named(
    batches: list[int], signer: Signer | None, data: Any
) -> None:
    lines = exported(batches, signer)
    places = st.integers(1, len(lines) - 2)
    first, second = data.draw(st.tuples(places, places).filter(lambda pair: pair[0] != pair[1]))
    moved = list(lines)
    moved[first], moved[second] = moved[second], moved[first]
    if data.draw(st.booleans()):
        one, other = json.loads(moved[first]), json.loads(moved[second])
        if one["type"] == other["type"] == "record":  # with the numbers put right again
            one["index"], other["index"] = other["index"], one["index"]
            moved[first], moved[second] = json.dumps(one) + "\n", json.dumps(other) + "\n"
    report = verified(moved)
    assert not report.intact
    assert named(report, lines, first, second)


@given(BATCHES, st.data())
def test_a_record_passed_off_as_pruned_or_left_out_is_found(batches: list[int], data: Any) -> None:
    lines = exported(batches)
    position = data.draw(st.sampled_from([at for at, line in enumerate(lines) if '"type":"record"' in line]))
    taken = json.loads(lines[position])
    leaf = {
        "type": "leaf",
        "index": taken["index"],
        "id": taken["record"]["id"],
        "occurredAt": taken["record"]["occurredAt"],
        "contentHash": taken["contentHash"],
        "why": data.draw(st.sampled_from(["gone", "filtered"])),
    }
    end = json.loads(lines[-1])
    end["records"] -= 1
    changed_lines = [*lines[:position], json.dumps(leaf), *lines[position + 1 : -1], json.dumps(end)]
    report = verified(changed_lines)
    assert [finding.record for finding in report.findings] == [taken["record"]["id"]]


def test_anchors_find_what_the_chain_alone_cannot() -> None:
    whole = exported([2, 1, 3])
    earlier = json.loads(exported([2, 1])[-1])["head"]
    newest = json.loads(whole[-1])["head"]
    cut = exported([2, 1])  # as if the newest seal had never been
    assert verified(cut).intact
    assert verified(whole, Expectations(heads=frozenset({earlier, newest}), at_least=3)).intact
    assert [f.kind for f in verified(cut, Expectations(heads=frozenset({newest}))).findings] == ["anchor"]
    assert [f.kind for f in verified(cut, Expectations(at_least=3)).findings] == ["anchor"]
    assert [f.kind for f in verified(exported([]), Expectations(at_least=1)).findings] == ["anchor"]
    assert verified(exported([])).intact


HOSTILE = {
    "deep": '{"type":"record","index":0,"contentHash":"","record":' + "[" * 100_000 + "]" * 100_000 + "}",
    "a list for a word": '{"type":"leaf","index":0,"id":"","occurredAt":"","contentHash":"HASH","why":[]}',
    "half a surrogate pair": '{"type":"leaf","index":0,"id":"\\ud800","occurredAt":"","contentHash":"HASH",'
    '"why":"gone"}',
}


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_line_made_to_confuse_is_named(line: str) -> None:
    lines = exported([2])
    lines[2] = line.replace("HASH", "0" * 64) + "\n"
    report = verified(lines)
    assert not report.intact
    assert any(finding.message.startswith("line 3 ") for finding in report.findings) or report.broken


@pytest.mark.parametrize(
    "changes",
    [
        {"complete": "no"},
        {"complete": 1},
        {"eventTypes": {"a": 1}},
        {"eventTypes": [1]},
        {"firstSeal": 2},
        {"firstSeal": 0, "complete": False},
        {"prev": "1" * 64},
    ],
)
def test_a_header_that_says_what_no_export_says_is_refused(changes: dict[str, Any]) -> None:
    lines = exported([1])
    lines[0] = json.dumps(json.loads(lines[0]) | changes) + "\n"
    with pytest.raises(NotAnExportError):
        verify_lines(lines, Expectations())


def test_an_export_that_was_narrowed_down_is_told_where_it_was_to_be_whole() -> None:
    lines = exported([1, 1, 1])
    header, second = json.loads(lines[0]), json.loads(lines[3])
    end = json.loads(lines[-1]) | {"seals": 2, "records": 2}
    narrowed = json.dumps(header | {"complete": False, "firstSeal": 2, "prev": second["prev"]})
    cut = [narrowed, *lines[3:-1], json.dumps(end)]
    report = verified(cut, Expectations(heads=frozenset({second["prev"]})))
    assert (report.findings, report.first, report.complete) == ([], 2, False)
    assert [f.kind for f in verify_lines(cut, Expectations(whole=True)).findings] == ["scope"]
    filtered = [json.dumps(header | {"eventTypes": ["X"]}), *lines[1:]]
    assert [f.kind for f in verify_lines(filtered, Expectations(whole=True)).findings] == ["scope"]
    assert verify_lines(lines, Expectations(whole=True)).intact


def test_a_head_that_only_the_header_names_is_not_in_the_chain() -> None:
    (header, end) = exported([])
    said = json.dumps(json.loads(header) | {"complete": False, "firstSeal": 9, "prev": "1" * 64})
    report = verified([said, end], Expectations(heads=frozenset({"1" * 64})))
    assert [finding.kind for finding in report.findings] == ["anchor"]


def test_a_chain_made_anew_without_the_key_is_found_with_the_key() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    forger = Signer(other, key_id(other.public_key()))
    posing = Signer(other, KEY_ID)
    kinds = {
        name: [finding.kind for finding in verified(exported([1], signer), PUBLIC).findings]
        for name, signer in {"none": None, "forger": forger, "posing": posing, "right": SIGNER}.items()
    }
    assert kinds == {
        "none": ["signature_missing"],
        "forger": ["signature_unknown"],
        "posing": ["signature_invalid"],
        "right": [],
    }
    late = Expectations(keys=PUBLIC.keys, signed_from=2)
    assert verified(exported([1]), late).intact


def test_the_example_is_a_program_that_needs_nothing_installed(tmp_path: Path) -> None:
    file = tmp_path / "evidence.jsonl"
    lines = exported([3, 2], SIGNER)
    head = json.loads(lines[-1])["head"]

    def run(*heads: str) -> subprocess.CompletedProcess[str]:
        # Isolated and without site-packages: the standard library is all there is.
        command = [sys.executable, "-I", "-S", str(EXAMPLE), str(file), *heads]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    file.write_text("".join(lines))
    assert (run(head).returncode, run(head).stdout) == (0, f"intact, newest head {head}\n")
    assert (run("0" * 63 + "1").returncode, run("0" * 63 + "1").stderr) == (
        1,
        "BROKEN: a head noted down earlier is not in the chain\n",
    )
    file.write_text("".join(lines).replace("req-2", "req-x"))
    assert (run().returncode, run().stderr) == (1, f"BROKEN: record {Known(2).row()['id']} was changed\n")
