"""The export: JSON Lines, an object a line, written and read one by one. Its format: docs/evidence.md."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, cast

from shadowfault_api.evidence.seal import GENESIS, Leaf, Seal
from shadowfault_api.evidence.verification import FILTERED, GONE, Expectations, Scope, Verification

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from shadowfault_api.evidence.report import Report

FORMAT: Final = "shadowfault-evidence"
VERSION: Final = 1
Line = dict[str, Any]

_SEAL: Final = frozenset(
    {
        "number",
        "prev",
        "root",
        "size",
        "sealedAt",
        "firstOccurredAt",
        "lastOccurredAt",
        "keyId",
        "head",
        "signature",
    }
)
_RECORD: Final = frozenset(
    {
        "id",
        "occurredAt",
        "controlId",
        "category",
        "eventType",
        "eventOutcome",
        "entityType",
        "entityId",
        "requestId",
        "details",
    }
)
_MEMBERS: Final[Mapping[str, frozenset[str]]] = {
    "header": frozenset({"format", "version", "exportedAt", "firstSeal", "prev", "complete", "eventTypes"}),
    "seal": _SEAL,
    "record": frozenset({"index", "contentHash", "record"}),
    "leaf": frozenset({"index", "id", "occurredAt", "contentHash", "why"}),
    "unsealed": frozenset({"contentHash", "record"}),
    "end": frozenset({"seals", "records", "unsealed", "head"}),
}
_HEX: Final = re.compile(r"[0-9a-f]{64}")


class NotAnExportError(Exception):
    """The file is none, or of a version this program does not know."""


class _MalformedError(Exception):
    pass


def dump(line: Line) -> str:
    """Write a line, its end included."""
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"


def seal_line(seal: Seal) -> Line:
    """Write a seal."""
    return {"type": "seal", **seal.document()}


def record_line(index: int, content_hash: str, record: Line) -> Line:
    """Write a record of the seal above."""
    return {"type": "record", "index": index, "contentHash": content_hash, "record": record}


def leaf_line(index: int, leaf: Leaf, why: str) -> Line:
    """Write what a seal knows of a record that is left out."""
    return {
        "type": "leaf",
        "index": index,
        "id": leaf.record_id,
        "occurredAt": leaf.occurred_at,
        "contentHash": leaf.content_hash,
        "why": why,
    }


def verify_lines(lines: Iterable[str], expectations: Expectations) -> Report:
    """Verify an export, line by line.

    Raises:
        NotAnExportError: the first line is not the header of an export.
    """
    reader = iter(lines)
    header = _header(next(reader, ""))
    scope = Scope(header["firstSeal"], header["prev"], header["complete"], header["eventTypes"] is not None)
    # What the header says is signed by nobody: it may narrow down what is looked at, and the report says so.
    return _File(Verification(expectations, scope)).read(reader)


class _File:
    """The state between two lines."""

    def __init__(self, verification: Verification) -> None:
        self._verification = verification
        self._end: Line | None = None
        self._take: Mapping[str, Callable[[Line], None]] = {
            "seal": self._seal,
            "record": self._record,
            "leaf": self._leaf,
            "unsealed": self._unsealed,
            "end": self._take_end,
        }

    def read(self, lines: Iterator[str]) -> Report:
        verification = self._verification
        for number, text in enumerate(lines, start=2):
            try:
                _require(self._end is None, "comes after the end")
                line = _parsed(text)
                self._take[line["type"]](line)
            except _MalformedError as error:
                verification.malformed(f"line {number} {error}")
            except (RecursionError, UnicodeEncodeError, TypeError, ValueError):
                verification.malformed(f"line {number} holds what no line of an export holds")
        report = verification.finish()
        self._compare_end(report)
        return report

    def _seal(self, line: Line) -> None:
        _require(all(_count(line[name]) for name in ("number", "size")), "has no number or no size")
        _require(all(_hash(line[name]) for name in ("prev", "root", "head")), "has no hash where one must be")
        texts = ("sealedAt", "firstOccurredAt", "lastOccurredAt")
        _require(all(isinstance(line[name], str) for name in texts), "has no time where one must be")
        optional = (line["keyId"], line["signature"])
        _require(all(item is None or isinstance(item, str) for item in optional), "has an odd signature")
        self._verification.seal(Seal.from_document(line))

    def _record(self, line: Line) -> None:
        record = line["record"]
        leaf = Leaf(record["id"], record["occurredAt"], line["contentHash"])
        self._verification.leaf(line["index"], leaf, record)

    def _leaf(self, line: Line) -> None:
        why = line["why"]
        _require(isinstance(why, str) and why in {FILTERED, GONE}, "does not say why its record is left out")
        leaf = Leaf(line["id"], line["occurredAt"], line["contentHash"])
        self._verification.leaf(line["index"], leaf, None, why=why)

    def _unsealed(self, line: Line) -> None:
        self._verification.unsealed(line["record"], line["contentHash"])

    def _take_end(self, line: Line) -> None:
        self._end = line

    def _compare_end(self, report: Report) -> None:
        end = self._end
        if end is None:
            self._verification.malformed("the file has no end: it was cut off")
            return
        found = {
            "seals": report.seals,
            "records": report.records,
            "unsealed": report.unsealed,
            "head": report.head,
        }
        for name, value in found.items():
            if end[name] != value:
                self._verification.malformed(f"the end says {name} {end[name]}, and the file has {value}")


def _header(text: str) -> Line:
    try:
        line = _parsed(text)
    except _MalformedError as error:
        raise NotAnExportError(f"not an export of evidence: its first line {error}") from None
    if line["type"] != "header" or line["format"] != FORMAT:
        raise NotAnExportError("not an export of evidence: its first line is no header")
    if line["version"] != VERSION:
        raise NotAnExportError(
            f"an export of version {line['version']}: this program knows version {VERSION}"
        )
    if not _count(line["firstSeal"]) or line["firstSeal"] < 1 or not _hash(line["prev"]):
        raise NotAnExportError("not an export of evidence: its header does not say where it begins")
    types = line["eventTypes"]
    if not isinstance(line["complete"], bool) or not (types is None or _texts(types)):
        raise NotAnExportError("not an export of evidence: its header does not say what it leaves out")
    begins = line["firstSeal"] == 1
    if (begins and line["prev"] != GENESIS) or (line["complete"] and not begins):
        raise NotAnExportError("not an export of evidence: its header says that it begins in two places")
    return line


def _parsed(text: str) -> Line:
    try:
        line = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        raise _MalformedError("is not JSON") from None
    _require(isinstance(line, dict), "is not an object")
    kind = line.get("type")
    _require(isinstance(kind, str) and kind in _MEMBERS, "is of no type there is")
    _require(line.keys() - {"type"} == _MEMBERS[kind], "has other members than its type")
    _require("index" not in line or type(line["index"]) is int, "has no index")
    if "contentHash" in line:
        _require(_hash(line["contentHash"]), "has no content hash")
        _check_identity(line.get("record", line), whole="record" in line)
    return cast("Line", line)


def _check_identity(record: object, *, whole: bool) -> None:
    _require(isinstance(record, dict), "has no record")
    members = cast("Line", record)
    _require(not whole or members.keys() == _RECORD, "holds a record with other members than a record has")
    _require(isinstance(members.get("id"), str), "names no record")
    _require(isinstance(members.get("occurredAt"), str), "has no time")
    _require(not whole or isinstance(members.get("details"), dict), "has no details")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is there twice")
    return found


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _hash(value: object) -> bool:
    return isinstance(value, str) and _HEX.fullmatch(value) is not None


def _count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise _MalformedError(otherwise)
