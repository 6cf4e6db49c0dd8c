"""What a verification found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

# Beyond this findings are counted only: a table turned upside down must not fill the memory.
_MOST_FINDINGS: Final = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not fit, and where: the number of a seal, the id of a record."""

    kind: str
    message: str
    seal: int | None = None
    record: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Turn it into JSON."""
        return {"kind": self.kind, "seal": self.seal, "record": self.record, "message": self.message}


@dataclass(slots=True)
class Report:
    """Counts, and what was found. `number` and `head` are those of the newest seal seen.

    `first`, `complete` and `filtered` say what was looked at; of an export they are its own word. There
    `unaccounted` records are gone, and whether they were pruned is said where the export does not reach.
    """

    seals: int = 0
    records: int = 0
    unsealed: int = 0
    pruned: int = 0
    unaccounted: int = 0
    left_out: int = 0
    signed: int = 0
    unsigned: int = 0
    unchecked_signatures: int = 0
    number: int | None = None
    head: str | None = None
    first: int = 1
    complete: bool = True
    filtered: bool = False
    broken: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        """Whether everything fits."""
        return self.broken == 0

    def add(self, finding: Finding) -> None:
        """Enter a finding."""
        self.broken += 1
        if len(self.findings) < _MOST_FINDINGS:
            self.findings.append(finding)

    def as_dict(self) -> dict[str, Any]:
        """Turn it into JSON."""
        return {
            "intact": self.intact,
            "seals": self.seals,
            "sealedRecords": self.records,
            "unsealedRecords": self.unsealed,
            "prunedRecords": self.pruned,
            "unaccountedRecords": self.unaccounted,
            "leftOutRecords": self.left_out,
            "signatures": {
                "valid": self.signed,
                "unsigned": self.unsigned,
                "notChecked": self.unchecked_signatures,
            },
            "scope": {"firstSeal": self.first, "complete": self.complete, "filtered": self.filtered},
            "newestSeal": self.number,
            "head": self.head,
            "findingsTotal": self.broken,
            "findings": [finding.as_dict() for finding in self.findings],
        }
