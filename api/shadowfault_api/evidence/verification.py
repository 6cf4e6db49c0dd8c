"""Finds every record or seal that was changed, removed, inserted or put elsewhere. Pure, and fed one by one.

What it cannot find by itself: that the newest seals are gone altogether, and that the whole chain was made
anew, where no key signs it. Both need something kept elsewhere: a head, a number, a public key.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shadowfault_api.evidence.merkle import Tree
from shadowfault_api.evidence.record import EventType, document_hash
from shadowfault_api.evidence.report import Finding, Report
from shadowfault_api.evidence.seal import GENESIS, Leaf, Seal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shadowfault_api.evidence.signing import Verifier

# Why a leaf comes without its record.
FILTERED: Final = "filtered"
GONE: Final = "gone"
_SAMPLES: Final = 100
_KEY_ID: Final = re.compile(r"[0-9a-f]{64}")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{128}")


@dataclass(frozen=True, slots=True)
class Expectations:
    """What is known from elsewhere.

    `heads` must each be in the chain; `at_least` is the number its newest seal must have reached. With `keys`
    every seal from `signed_from` on must carry a signature of one of them.
    """

    heads: frozenset[str] = frozenset()
    at_least: int = 0
    keys: tuple[Verifier, ...] = ()
    signed_from: int = 1


@dataclass(frozen=True, slots=True)
class Scope:
    """What is looked at: seals from `first` on, the one before it having the head `prev`.

    `complete`: up to the newest, so that a record which is gone must be among those recorded as pruned.
    `filtered`: records of some types only, the others as leaves.
    """

    first: int = 1
    prev: str = GENESIS
    complete: bool = True
    filtered: bool = False


class Verification:
    """Call `seal`, then `leaf` for each of its leaves, and so on; `unsealed` for the rest; then `finish`."""

    def __init__(self, expectations: Expectations, scope: Scope) -> None:
        self.report = Report()
        self._expected = expectations
        self._scope = scope
        self._keys = {key.key_id: key for key in expectations.keys}
        self._next = scope.first
        self._prev = scope.prev
        self._seal: Seal | None = None
        self._tree = Tree()
        self._index = 0
        # Whether something of this seal is named already: its root need not be named too.
        self._explained = False
        self._signed_before = False
        self._unseen_heads = set(expectations.heads) - {scope.prev}
        self._gone: Counter[str] = Counter()
        self._gone_samples: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        self._pruned: Counter[str] = Counter()

    def seal(self, seal: Seal) -> None:
        """Take the next seal."""
        self.end_of_leaves()
        self.report.seals += 1
        if seal.computed_head() != seal.head:
            # What it says its number is may be what was changed.
            where = "" if seal.number == self._next else f", where {self._next} should be,"
            message = f"seal {seal.number}{where} was changed: its head is not its hash"
            self._add("seal_changed", message, self._next)
        self._place(seal)
        self._check_signature(seal)
        self._unseen_heads.discard(seal.head)
        self._seal, self._tree, self._index, self._explained = seal, Tree(), 0, False
        self.report.number, self.report.head = seal.number, seal.head

    def leaf(
        self,
        index: int,
        leaf: Leaf,
        record: Mapping[str, Any] | None,
        *,
        written_hash: str | None = None,
        why: str | None = None,
    ) -> None:
        """Take the next leaf of the seal.

        Without its record, say why: `FILTERED` or `GONE`. `written_hash` is the hash written beside the
        record, where that is another place than the leaf's.
        """
        seal = self._seal
        if seal is None:
            self._add("record_inserted", f"record {leaf.record_id} belongs to no seal", None, leaf.record_id)
            return
        if index != self._index:
            self._misplaced(seal, index, leaf)
        self._index = max(self._index, index + 1)
        self._tree.append(leaf.data())
        if record is None:
            self._absent(seal, leaf, why)
            return
        self.report.records += 1
        if written_hash not in {None, leaf.content_hash}:
            self._changed(leaf, seal.number)
            return
        self._check_record(record, leaf, seal.number)

    def unsealed(self, record: Mapping[str, Any], content_hash: str) -> None:
        """Take a record no seal covers yet."""
        self.end_of_leaves()
        self._seal = None
        self.report.unsealed += 1
        self._check_record(record, Leaf(record["id"], record["occurredAt"], content_hash), None)

    def malformed(self, message: str) -> None:
        """Take a piece of a file that cannot be read."""
        self._explained = True
        self._add("malformed", message, self._seal.number if self._seal else None)

    def stray_leaf(self, number: int, leaf: Leaf) -> None:
        """Take a leaf of a seal there is not."""
        message = f"record {leaf.record_id} is entered under seal {number}, which is not there"
        self._add("seal_missing", message, number, leaf.record_id)

    def finish(self) -> Report:
        """End, and report."""
        self.end_of_leaves()
        self._account_for_the_gone()
        if self.report.number is not None or self._expected.at_least:
            newest = self.report.number or 0
            if newest < self._expected.at_least:
                message = (
                    f"the newest seal is {newest}, and there were {self._expected.at_least}: seals are gone"
                )
                self._add("anchor", message, newest + 1)
        for head in sorted(self._unseen_heads):
            self._add("anchor", f"no seal has the head {head}: the chain is another, or its end is gone")
        return self.report

    def end_of_leaves(self) -> None:
        """Compare the root, once all leaves of a seal are there."""
        seal, self._seal = self._seal, None
        if seal is None:
            return
        if self._explained:
            return
        if self._tree.size != seal.size:
            self._add(
                "record_missing" if self._tree.size < seal.size else "record_inserted",
                f"seal {seal.number} covers {seal.size} records, and {self._tree.size} are there",
                seal.number,
            )
        elif self._tree.root().hex() != seal.root:
            message = f"the records of seal {seal.number} are not those that were sealed, or in another order"
            self._add("records_changed", message, seal.number)

    def _place(self, seal: Seal) -> None:
        if seal.number < self._next:
            self._add("seal_misplaced", f"seal {seal.number} is there twice or in a wrong place", seal.number)
            return
        if seal.number > self._next:
            last = seal.number - 1
            which = f"seal {last} is" if last == self._next else f"seals {self._next} to {last} are"
            self._add("seal_missing", f"{which} missing", self._next)
        elif seal.prev != self._prev:
            message = (
                f"seal {seal.number} does not follow from seal {seal.number - 1}: one of them was changed"
            )
            self._add("chain_broken", message, seal.number)
        self._next = seal.number + 1
        self._prev = seal.head

    def _check_signature(self, seal: Seal) -> None:
        number = seal.number
        required = self._signed_before or (bool(self._keys) and number >= self._expected.signed_from)
        if seal.signature is None or seal.key_id is None:
            self.report.unsigned += 1
            if required or seal.signature != seal.key_id:
                self._add("signature_missing", f"seal {number} is not signed", number)
            return
        self._signed_before = True
        if not _well_formed(seal.key_id, seal.signature):
            self._add("signature_invalid", f"seal {number} carries something that is no signature", number)
            return
        if not self._keys:
            self.report.unchecked_signatures += 1
            return
        key = self._keys.get(seal.key_id)
        if key is None:
            self._add("signature_unknown", f"seal {number} is signed by another key, {seal.key_id}", number)
        elif not key.accepts(seal.head, seal.signature):
            self._add("signature_invalid", f"the signature of seal {number} is not valid", number)
        else:
            self.report.signed += 1

    def _misplaced(self, seal: Seal, index: int, leaf: Leaf) -> None:
        self._explained = True
        expected = self._index
        if index > expected:
            message = f"record {expected} of seal {seal.number} is missing, before {leaf.record_id}"
            self._add("record_missing", message, seal.number)
        else:
            message = f"record {leaf.record_id} is number {index} of seal {seal.number}, in place {expected}"
            self._add("record_misplaced", message, seal.number, leaf.record_id)

    def _absent(self, seal: Seal, leaf: Leaf, why: str | None) -> None:
        if why == FILTERED and self._scope.filtered:
            self.report.left_out += 1
            return
        month = leaf.occurred_at[:7]
        self._gone[month] += 1
        if len(self._gone_samples[month]) < _SAMPLES:
            self._gone_samples[month].append((seal.number, leaf.record_id))

    def _check_record(self, record: Mapping[str, Any], leaf: Leaf, number: int | None) -> None:
        if not _fits(record, leaf):
            self._changed(leaf, number)
            return
        if record["eventType"] == EventType.EVIDENCE_PRUNED:
            count = record["details"].get("records")
            self._pruned[str(record["entityId"])] += count if isinstance(count, int) else 0

    def _changed(self, leaf: Leaf, number: int | None) -> None:
        self._explained = True
        where = f"of seal {number}" if number is not None else "(not sealed yet)"
        self._add("record_changed", f"record {leaf.record_id} {where} was changed", number, leaf.record_id)

    def _account_for_the_gone(self) -> None:
        for month, count in sorted(self._gone.items()):
            declared = self._pruned[month]
            if count == declared or (not self._scope.complete and declared == 0):
                self.report.pruned += count
                continue
            self._report_gone(month, count, declared)

    def _report_gone(self, month: str, count: int, declared: int) -> None:
        samples: Sequence[tuple[int, str]] = self._gone_samples[month]
        for number, record_id in samples:
            note = f"; {declared} of {month} were pruned, {count} are gone" if declared else ""
            message = f"record {record_id} of seal {number} is gone{note}"
            self._add("record_missing", message, number, record_id)
        self.report.broken += count - len(samples)

    def _add(self, kind: str, message: str, seal: int | None = None, record: str | None = None) -> None:
        self.report.add(Finding(kind, message, seal, record))


def _well_formed(key_id: str, signature: str) -> bool:
    """Whether these can be an Ed25519 signature and the name of its key: seen without any key."""
    return _KEY_ID.fullmatch(key_id) is not None and _SIGNATURE.fullmatch(signature) is not None


def _fits(record: Mapping[str, Any], leaf: Leaf) -> bool:
    try:
        hashed = document_hash(record)
    except (ValueError, TypeError):
        return False
    return (record["id"], record["occurredAt"], hashed) == (
        leaf.record_id,
        leaf.occurred_at,
        leaf.content_hash,
    )
