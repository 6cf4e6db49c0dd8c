"""What happens to a batch of outbox entries: decide, write to the shadow, record the outcome, report it."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import structlog

from shadowfault import FaultInjector, Surface
from shadowfault_api.metrics import exemplar
from shadowfault_api.shadow.deferral import Deferral
from shadowfault_api.shadow.failures import (
    OF_ONE,
    FailureType,
    classify,
    failure_type_of,
    injected,
    may_be_of_a_row,
)
from shadowfault_api.store.outbox import FailedWrite, Failure, Settled
from shadowfault_api.turns import in_turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shadowfault_api.entities import OutboxEntry
    from shadowfault_api.shadow.path import ShadowPath

_log: Final = structlog.get_logger("shadowfault.shadow")
_LONGEST_PAUSE: Final = 2.0
# So many outcomes refused in a row, and it is not the outcomes.
_REFUSALS: Final = 5


@dataclass(slots=True)
class Outcome:
    """What an attempt came to. `left`: not attempted, for the breaker opened or the claim ran out."""

    written: list[OutboxEntry] = field(default_factory=list)
    failed: list[FailedWrite] = field(default_factory=list)
    left: list[OutboxEntry] = field(default_factory=list)


class Settler:
    """Settles batches one after the other; the order of a key's entries is the order they are given in."""

    def __init__(self, path: ShadowPath, injector: FaultInjector | None) -> None:
        self._path = path
        self._metrics = path.metrics
        self._injector = injector
        self._refused_in_a_row = 0

    async def settle(
        self, entries: Sequence[OutboxEntry], begin_before: float = math.inf
    ) -> Sequence[OutboxEntry]:
        """Make one attempt for each entry and record the outcome. An attempt that failed is not repeated.

        Args:
            begin_before: monotonic seconds; no write to the shadow begins later.

        Returns:
            The entries that were not attempted. They are as pending as before.
        """
        outcome = await self.attempt(entries, begin_before)
        await self.record(outcome)
        return outcome.left

    async def give_up(self, entries: Sequence[OutboxEntry]) -> None:
        """Record entries as failed that have waited too long for the circuit breaker to close."""
        failure = Failure(FailureType.CIRCUIT_OPEN)
        await self.record(Outcome(failed=[FailedWrite(entry, failure) for entry in entries]))

    async def attempt(self, entries: Sequence[OutboxEntry], begin_before: float = math.inf) -> Outcome:
        """Decide about and write entries; nothing is on record yet."""
        outcome = Outcome()
        if not self._path.breaker.closed:
            outcome.left.extend(entries)
            return outcome
        await self._write(self._decide_about(entries, outcome), outcome, begin_before)
        return outcome

    async def record(self, outcome: Outcome) -> None:
        """Write down what happened. The primary may be away for a while; what happened stays true.

        What the primary refuses for another reason is found by halving, and left: it is as pending as before.
        """
        if not outcome.written and not outcome.failed:
            return
        pause = 0.05
        while True:
            try:
                settled = await self._path.outbox.record(outcome.written, outcome.failed)
            except Exception as error:  # noqa: BLE001 - see above
                if failure_type_of(error) in OF_ONE:
                    await self._record_apart(outcome, error)
                    return
                _log.warning("shadow_record_delayed", error_class=type(error).__name__, retry_in=pause)
            else:
                self._refused_in_a_row = 0
                await self._report(settled)
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _record_apart(self, outcome: Outcome, error: Exception) -> None:
        """Record one after the other what cannot be recorded together.

        First what failed: a newer write that was made takes the failures before it away. After some refusals
        in a row the primary as a whole is at fault, and the rest is left as it is.
        """
        written, failed = outcome.written, outcome.failed
        if len(written) + len(failed) > 1 and self._refused_in_a_row < _REFUSALS:
            middle = max(1, len(failed) // 2) if failed else 0
            half = len(written) // 2
            parts = (
                (Outcome(failed=failed), Outcome(written=written))
                if written and failed
                else (Outcome(written[:half], failed[:middle]), Outcome(written[half:], failed[middle:]))
            )
            for part in parts:
                await self.record(part)
            return
        self._refused_in_a_row += 1
        entries = [*written, *(one.entry for one in failed)]
        for labels, alike in _by_labels(entries).items():
            self._metrics.deferred.labels(*labels, Deferral.RECORD_REFUSED.value).inc(len(alike))
        _log.error(
            "shadow_record_refused",
            requestId=entries[0].request_id,
            entity_type=entries[0].entity_type,
            entity_id=entries[0].entity_id,
            version=entries[0].version,
            rows=len(entries),
            error_class=type(error).__name__,
        )

    def _decide_about(self, entries: Sequence[OutboxEntry], outcome: Outcome) -> Sequence[OutboxEntry]:
        """Ask the injector, where there is one, about each entry; returns those to write."""
        if self._injector is None:
            return entries
        to_write: list[OutboxEntry] = []
        for entry in entries:
            # Taken before the decision, so that no fault is dated after the deadline it kept.
            began, at = time.monotonic(), datetime.now(UTC)
            failure = self._decide(self._injector, entry)
            if failure is None:
                to_write.append(entry)
            else:
                outcome.failed.append(FailedWrite(entry, failure, at))
                self._observe([entry], time.monotonic() - began, success="false")
        return to_write

    @staticmethod
    def _decide(injector: FaultInjector, entry: OutboxEntry) -> Failure | None:
        fault = injector.check(
            Surface.SHADOW_WRITE,
            entry.entity_type,
            entry.operation.value,
            request_id=entry.decision_key,
            attempt=entry.attempts,
        )
        return None if fault is None else injected(fault)

    async def _write(self, entries: Sequence[OutboxEntry], outcome: Outcome, begin_before: float) -> None:
        if not entries:
            return
        began = time.monotonic()
        if began >= begin_before or not self._path.breaker.closed:
            outcome.left.extend(entries)
            return
        if self._path.breaker.on_probation and len(entries) > 1:
            # A shadow that answers may still take no writes: while that is not known, one entry is at stake.
            await self._write(entries[:1], outcome, begin_before)
            await self._write(entries[1:], outcome, begin_before)
            return
        try:
            with self._path.tracing.shadow_write(entries):
                overtaken = await self._path.deadline.run(self._path.shadow.apply(entries))
        except Exception as error:  # noqa: BLE001 - whatever the shadow does is a failed shadow write, no more
            failure = classify(error)
        else:
            self._note_answer(outcome, entries, overtaken, time.monotonic() - began)
            return
        elapsed = time.monotonic() - began
        if failure.failure_type == FailureType.CONSTRAINT:
            self._path.breaker.succeeded()  # the shadow answers, and refuses a row
        if may_be_of_a_row(failure) and len(entries) > 1:
            # The others must not suffer for it: halving finds it in a few steps, and keeps the order.
            half = len(entries) // 2
            await self._write(entries[:half], outcome, begin_before)
            await self._write(entries[half:], outcome, begin_before)
            return
        if failure.failure_type != FailureType.CONSTRAINT:
            self._path.breaker.failed()
        self._note_failures(outcome, entries, failure, elapsed)

    def _note_answer(
        self,
        outcome: Outcome,
        entries: Sequence[OutboxEntry],
        overtaken: Sequence[OutboxEntry],
        seconds: float,
    ) -> None:
        self._path.breaker.succeeded()
        late = {entry.id for entry in overtaken}
        made = [entry for entry in entries if entry.id not in late]
        outcome.written.extend(made)
        self._observe(made, seconds, success="true")
        self._note_failures(outcome, overtaken, Failure(FailureType.SUPERSEDED), seconds)

    def _note_failures(
        self, outcome: Outcome, entries: Sequence[OutboxEntry], failure: Failure, seconds: float
    ) -> None:
        outcome.failed.extend(FailedWrite(entry, failure) for entry in entries)
        self._observe(entries, seconds, success="false")

    def _observe(self, entries: Sequence[OutboxEntry], seconds: float, *, success: str) -> None:
        """Observe one attempt that took the same time for all; a bucket keeps the last exemplar only."""
        for labels, alike in _by_labels(entries).items():
            durations = self._metrics.durations.labels(*labels, success)
            for _ in alike[1:]:
                durations.observe(seconds)
            durations.observe(seconds, exemplar(alike[-1].request_id))

    async def _report(self, settled: Settled) -> None:
        """Count and log what is on record: metrics, log and evidence tell of the same writes."""
        for labels, alike in _by_labels(settled.written).items():
            self._metrics.successes.labels(*labels).inc(len(alike))
        async for write in in_turns(settled.failed):
            self._report_failure(write)

    def _report_failure(self, write: FailedWrite) -> None:
        entry, failure = write.entry, write.failure
        labels = (entry.entity_type, entry.operation.value)
        example = exemplar(entry.request_id)
        self._metrics.failures.labels(*labels, failure.failure_type).inc(exemplar=example)
        if failure.failure_type == FailureType.INJECTED:
            self._metrics.faults.labels(*labels).inc(exemplar=example)
        _log.warning(
            "shadow_write_failed",
            requestId=entry.request_id,
            entity_type=entry.entity_type,
            entity_id=entry.entity_id,
            operation=entry.operation.value,
            version=entry.version,
            failure_type=str(failure.failure_type),
            experiment=failure.experiment,
            experiment_uid=failure.experiment_uid,
            error_class=failure.error_class,
            sql_state=failure.sql_state,
        )


def _by_labels(entries: Sequence[OutboxEntry]) -> dict[tuple[str, str], list[OutboxEntry]]:
    groups: dict[tuple[str, str], list[OutboxEntry]] = {}
    for entry in entries:
        groups.setdefault((entry.entity_type, entry.operation.value), []).append(entry)
    return groups
