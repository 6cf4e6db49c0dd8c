"""Finds every record or seal that was changed, removed, inserted or put elsewhere. Pure, and fed one by one.

What it cannot find by itself: that the newest seals are gone altogether, which takes a head or a number kept
elsewhere; and that the whole chain was made anew, which takes a head or a public key.

Records that are gone are accounted for where evidence says that their month was pruned. Pruning takes whole
months that are over, so a month of which anything else was sealed before its end cannot have been pruned.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from shadowfault_api.evidence.merkle import Tree
from shadowfault_api.evidence.record import EventType, document_hash
from shadowfault_api.evidence.report import Finding, Report
from shadowfault_api.evidence.seal import GENESIS, Leaf, Seal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shadowfault_api.evidence.signing import Verifier

# Why a leaf comes without its record.
FILTERED: Final = "filtered"
GONE: Final = "gone"
_SAMPLES: Final = 100
# Of a time as it is written: the year and the month.
_MONTH: Final = len("2026-01")
_KEY_ID: Final = re.compile(r"[0-9a-f]{64}")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{128}")


@dataclass(frozen=True, slots=True)
class Expectations:
    """What is known from elsewhere.

    `heads` must each be in the chain; `at_least` is the number its newest seal must have reached. With `keys`
    every seal from `signed_from` on must carry a signature of one of them, and there must be a seal. With
    `whole` an export must be of everything: what it says of itself is signed by nobody.
    """

    heads: frozenset[str] = frozenset()
    at_least: int = 0
    keys: tuple[Verifier, ...] = ()
    signed_from: int = 1
    whole: bool = False


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


@dataclass(slots=True)
class _Month:
    """What is known of a month: its leaves without a record, and what tells whether it was pruned."""

    gone: int = 0
    samples: list[tuple[int, str]] = field(default_factory=list)
    newest_gone: int = 0
    # The least seal with a record that is there, and the first such record sealed before the month's end.
    oldest_present: int | None = None
    sealed_in_time: tuple[int, str] | None = None
    pruned: int = 0
    # The newest seal that says so; one that is not sealed yet comes after all.
    pruned_in: float = 0


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
        self._unseen_heads = set(expectations.heads)
        self._months: defaultdict[str, _Month] = defaultdict(_Month)
        self.report.first, self.report.complete = scope.first, scope.complete
        self.report.filtered = scope.filtered

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
        self._present(seal, leaf)
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
        if self._expected.whole and (not self._scope.complete or self._scope.filtered):
            self._add("scope", "the export leaves out some by its own word, and it was to be whole")
        if self._keys and self.report.number is None:
            self._add("anchor", "there is no seal: nothing here is signed by that key")
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
        else:
            # Of an export that begins later it is the head of the seal before.
            self._unseen_heads.discard(seal.prev)
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
            self._present(seal, leaf)
            return
        month = self._months[leaf.occurred_at[:_MONTH]]
        month.gone += 1
        month.newest_gone = max(month.newest_gone, seal.number)
        if len(month.samples) < _SAMPLES:
            month.samples.append((seal.number, leaf.record_id))

    def _present(self, seal: Seal, leaf: Leaf) -> None:
        name = leaf.occurred_at[:_MONTH]
        month = self._months[name]
        month.oldest_present = min(month.oldest_present or seal.number, seal.number)
        if month.sealed_in_time is None and seal.sealed_at[:_MONTH] <= name:
            month.sealed_in_time = (seal.number, leaf.record_id)

    def _check_record(self, record: Mapping[str, Any], leaf: Leaf, number: int | None) -> None:
        if not _fits(record, leaf):
            self._changed(leaf, number)
            return
        if record["eventType"] == EventType.EVIDENCE_PRUNED:
            self._check_pruned(record, number)

    def _check_pruned(self, record: Mapping[str, Any], number: int | None) -> None:
        name, count = str(record["entityId"]), record["details"].get("records")
        if type(count) is not int or count < 1 or record["occurredAt"][:_MONTH] <= name:
            message = f"record {record['id']} says that {name} was pruned, as no pruning says it"
            self._add("record_forged", message, number, record["id"])
            return
        month = self._months[name]
        month.pruned += count
        month.pruned_in = max(month.pruned_in, math.inf if number is None else number)

    def _changed(self, leaf: Leaf, number: int | None) -> None:
        self._explained = True
        where = f"of seal {number}" if number is not None else "(not sealed yet)"
        self._add("record_changed", f"record {leaf.record_id} {where} was changed", number, leaf.record_id)

    def _account_for_the_gone(self) -> None:
        for name, month in sorted(self._months.items()):
            if not month.gone:
                continue
            problem = self._not_pruned(name, month)
            if problem is not None:
                self._report_gone(month, problem)
            elif month.pruned:
                self.report.pruned += month.gone
            else:
                self.report.unaccounted += month.gone

    def _not_pruned(self, name: str, month: _Month) -> str | None:
        """Say why what is gone of a month cannot have been pruned; None where it can."""
        if month.pruned == 0:
            return "" if self._scope.complete else None
        # An export by time may show a part of a month only.
        if month.gone > month.pruned or (self._scope.complete and month.gone != month.pruned):
            return f"; {month.pruned} of {name} were pruned, {month.gone} are gone"
        if month.pruned_in <= month.newest_gone:
            return f"; what says that {name} was pruned was sealed before it"
        if month.sealed_in_time is not None:
            number, record = month.sealed_in_time
            return f", and record {record} of seal {number} is not: pruning takes all of {name}"
        if month.oldest_present is not None and month.oldest_present <= month.newest_gone:
            return f", and others of seal {month.oldest_present} are not: pruning takes all of {name}"
        return None

    def _report_gone(self, month: _Month, problem: str) -> None:
        for number, record_id in month.samples:
            message = f"record {record_id} of seal {number} is gone{problem}"
            self._add("record_missing", message, number, record_id)
        self.report.broken += month.gone - len(month.samples)

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
