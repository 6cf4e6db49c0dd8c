"""Verify an export of evidence with the standard library alone, as docs/evidence.md describes it.

python docs/examples/verify_evidence.py evidence.jsonl [HEAD ...]

A HEAD is one that was noted down elsewhere and must be in the chain. Signatures are not looked at: they take
a library, or `openssl` as docs/evidence.md shows. Exits 0 intact, 1 broken; says what was found first.
"""

import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

MEMBERS = {
    "header": "complete eventTypes exportedAt firstSeal format prev version",
    "seal": "firstOccurredAt head keyId lastOccurredAt number prev root sealedAt signature size",
    "record": "contentHash index record",
    "leaf": "contentHash id index occurredAt why",
    "unsealed": "contentHash record",
    "end": "head records seals unsealed",
}
RECORD = "category controlId details entityId entityType eventOutcome eventType id occurredAt requestId"
HEX_128 = re.compile("[0-9a-f]{128}")


class BrokenError(Exception):
    """The evidence is not what it was."""


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def canonical(value: object) -> bytes:
    """RFC 8785, for what evidence holds: no fractions, and names in ASCII."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BrokenError("half a surrogate pair") from None


def root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1."""
    if len(leaves) < 2:
        return sha256(b"\x00" + leaves[0]) if leaves else sha256(b"")
    left = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + root(leaves[:left]) + root(leaves[left:]))


def check(condition: object, otherwise: str) -> None:
    if not condition:
        raise BrokenError(otherwise)


def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    check(len(dict(pairs)) == len(pairs), "a member is there twice")
    return dict(pairs)


def parsed(number: int, text: str) -> dict[str, Any]:
    try:
        line = json.loads(text, object_pairs_hook=members)
        fits = sorted(line.keys() - {"type"}) == MEMBERS[line["type"]].split()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        fits = False
    check(fits, f"line {number} is not of this format")
    return dict(line)


class Export:
    """What is known after some lines of it."""

    def __init__(self, header: dict[str, Any]) -> None:
        check(header["type"] == "header", "it does not begin with a header")
        check((header["format"], header["version"]) == ("shadowfault-evidence", 1), "another format")
        self.filtered, self.complete = header["eventTypes"] is not None, header["complete"]
        begins = header["firstSeal"] == 1
        check(
            type(self.complete) is bool and (begins or not self.complete), "a header that contradicts itself"
        )
        check(header["prev"] == "0" * 64 or not begins, "a header that contradicts itself")
        self.number, self.head = header["firstSeal"] - 1, header["prev"]
        self.seal: dict[str, Any] | None = None
        self.leaves: list[bytes] = []
        self.counts = Counter(seals=0, records=0, unsealed=0)
        # By month, as in 2026-01.
        self.gone: Counter[str] = Counter()
        self.pruned: Counter[str] = Counter()
        self.pruned_in: dict[str, float] = {}
        self.gone_last: dict[str, int] = {}
        self.present_first: dict[str, int] = {}
        self.sealed_in_time: set[str] = set()
        self.heads: set[str] = set()
        self.signed = self.ended = False

    def take(self, line: dict[str, Any]) -> None:
        check(not self.ended, "there is something after the end")
        kind = line.pop("type")
        if kind in {"record", "leaf"}:
            place = line["index"] if type(line["index"]) is int else None
            check(self.seal and place == len(self.leaves), "a record is missing, or misplaced")
        else:
            self.close_seal()
        getattr(self, f"take_{kind}")(line)

    def take_seal(self, seal: dict[str, Any]) -> None:
        check(seal["number"] == self.number + 1, f"seal {self.number + 1} is missing, or misplaced")
        check(seal["prev"] == self.head, f"seal {seal['number']} does not follow from the one before")
        covered = {name: value for name, value in seal.items() if name not in {"head", "signature"}}
        check(sha256(canonical(covered)).hex() == seal["head"], f"seal {seal['number']} was changed")
        check((seal["keyId"] is None) == (seal["signature"] is None), "half a signature")
        check(seal["signature"] or not self.signed, f"seal {seal['number']} is not signed any more")
        check(seal["signature"] is None or HEX_128.fullmatch(seal["signature"]), "a signature that is none")
        self.signed = seal["signature"] is not None
        self.seal, self.number, self.head = seal, seal["number"], seal["head"]
        self.heads |= {seal["prev"], self.head}
        self.counts["seals"] += 1

    def take_record(self, line: dict[str, Any]) -> None:
        self.check_record(line)
        self.counts["records"] += 1
        self.present(line["record"]["occurredAt"])
        self.add_leaf(line["record"]["id"], line["record"]["occurredAt"], line["contentHash"])

    def take_leaf(self, line: dict[str, Any]) -> None:
        check(line["why"] in {"gone", "filtered"}, "a record is left out for no reason")
        if line["why"] == "filtered" and self.filtered:
            self.present(line["occurredAt"])
        else:
            self.gone[line["occurredAt"][:7]] += 1
            self.gone_last[line["occurredAt"][:7]] = self.number
        self.add_leaf(line["id"], line["occurredAt"], line["contentHash"])

    def take_unsealed(self, line: dict[str, Any]) -> None:
        self.check_record(line)
        self.counts["unsealed"] += 1

    def take_end(self, line: dict[str, Any]) -> None:
        found = {**self.counts, "head": self.head if self.counts["seals"] else None}
        check(line == found, "there is more or less than the end says")
        self.ended = True

    def check_record(self, line: dict[str, Any]) -> None:
        record = line["record"]
        check(sorted(record) == RECORD.split(), "a record has other members")
        hashed = sha256(canonical(record)).hex()
        check(hashed == line["contentHash"], f"record {record['id']} was changed")
        if record["eventType"] == "EVIDENCE_PRUNED":
            month, count = record["entityId"], record["details"].get("records")
            well = type(count) is int and count > 0 and record["occurredAt"][:7] > month
            check(well, f"{record['id']} says that {month} was pruned, as no pruning says it")
            self.pruned[month] += count
            number = self.number if self.seal else float("inf")
            self.pruned_in[month] = max(self.pruned_in.get(month, 0), number)

    def present(self, occurred_at: str) -> None:
        month = occurred_at[:7]
        self.present_first.setdefault(month, self.number)
        if self.seal and self.seal["sealedAt"][:7] <= month:
            self.sealed_in_time.add(month)

    def add_leaf(self, record_id: str, occurred_at: str, content_hash: str) -> None:
        self.leaves.append(f"{record_id} {occurred_at} {content_hash}".encode())

    def close_seal(self) -> None:
        seal, leaves, self.seal, self.leaves = self.seal, self.leaves, None, []
        if seal:
            check(len(leaves) == seal["size"], f"records of seal {seal['number']} are missing, or too many")
            check(root(leaves).hex() == seal["root"], f"the records of seal {seal['number']} are others")

    def finish(self, heads: Iterable[str]) -> None:
        check(self.ended, "it was cut off")
        for month, count in self.gone.items():
            said = self.pruned[month]
            fits = count == said or (not self.complete and (count < said or not said))
            check(fits, f"{count} records of {month} are gone, and {said} were pruned")
            if said:
                last = self.gone_last[month]
                check(self.pruned_in[month] > last, f"what says that {month} was pruned comes before it")
                whole = month not in self.sealed_in_time and self.present_first.get(month, last + 1) > last
                check(whole, f"{count} records of {month} are gone and others are not: pruning takes all")
        check(self.heads >= set(heads), "a head noted down earlier is not in the chain")


def verify(lines: Iterable[str], heads: Iterable[str] = ()) -> str:
    """Verify; returns the newest head.

    Raises:
        BrokenError: with what was found first.
    """
    numbered = enumerate(lines, start=1)
    try:
        export = Export(parsed(*next(numbered, (1, ""))))
        for number, text in numbered:
            export.take(parsed(number, text))
        export.finish(heads)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BrokenError(f"a value of another type: {type(error).__name__}") from None
    return str(export.head)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123 - a program of one file
        try:
            sys.stdout.write(f"intact, newest head {verify(file, sys.argv[2:])}\n")
        except BrokenError as error:
            sys.exit(f"BROKEN: {error}")
