"""What becomes of suspects: judged, recorded, counted, and the first of them logged."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

import structlog

from shadowfault_api.verifier.errors import SchemaError
from shadowfault_api.verifier.sweep import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from shadowfault_api.verifier.examine import Examiner
    from shadowfault_api.verifier.model import Cause, Entity, Found
    from shadowfault_api.verifier.recorder import Recorder
    from shadowfault_api.verifier.stores import Key

_log: Final = structlog.get_logger("shadowfault.verifier")
# Evidence has all of them; the log only shows that there are.
_LOGGED_DISCREPANCIES: Final = 100
# Of `entity_id`, a UUID in its characters.
_LONGEST_KEY: Final = 36
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


class Settler:
    """Settles suspects of one entity, for one run."""

    def __init__(self, examiner: Examiner, recorder: Recorder, entity: Entity, run_id: str) -> None:
        self._examiner = examiner
        self._recorder = recorder
        self._entity = entity
        self._run_id = run_id
        self._logged = 0

    def settle(self, keys: Sequence[str], counted_since: datetime) -> Tally:
        """Judge keys and record the judgements.

        A discrepancy on record that was seen since `counted_since` is in a count already.
        """
        began, looked_at = time.monotonic(), self._recorder.now()
        judged = self._examiner.judge(keys)
        entered = self._recorder.record(judged.found, judged.equal, looked_at)
        self._log_new(entered.new)
        now = self._recorder.now()
        persisting = [
            earlier for earlier, _ in entered.persisting if not counted_since <= earlier.last_seen_at <= now
        ]
        return Tally(
            in_flight=len(judged.in_flight),
            new=len(entered.new),
            persisting=len(persisting),
            resolved=len(entered.resolved),
            recheck_seconds=time.monotonic() - began,
        )

    def settle_known(
        self,
        since: datetime,
        counted_since: datetime,
        page: int,
        between: Callable[[], None],
        *,
        most: int | None = None,
    ) -> Tally:
        """Look at what is on record and was not met since: it is gone, or in flight, or still so.

        Of more than `most`, at about so many that were not looked at for longest.
        """
        tally = Tally()
        after: str | None = None
        until = None if most is None else self._recorder.seen_by(since, most)
        while known := self._recorder.open_unseen(since, after, page, until):
            between()
            tally.add(self.settle([item.key for item in known], counted_since))
            after = known[-1].id
        tally.in_flight = 0  # these are open, and counted as such
        return tally

    def _log_new(self, new: Iterable[Found]) -> None:
        for item in new:
            if self._logged >= _LOGGED_DISCREPANCIES:
                return
            self._logged += 1
            _log.warning(
                "discrepancy_found",
                run_id=self._run_id,
                entity_type=self._entity.entity_type,
                entity_id=item.key,
                discrepancy_type=item.difference.discrepancy_type.value,
                fields=list(item.difference.fields),
                **_cause_fields(item.cause),
            )


def names(keys: Iterable[Key]) -> list[str]:
    """The keys as the outbox and the evidence have them.

    Raises:
        SchemaError: one is no key of a listing, so nothing can be entered under it.
    """
    return [_name(key[0]) for key in keys]


def _name(key: str | int | bytes) -> str:
    # SQLite takes any value into any column, and a shadow may be written by others.
    if not isinstance(key, str):
        problem = f"is {type(key).__name__} and no text"
    elif len(key) > _LONGEST_KEY:
        problem = f"has {len(key)} characters"
    elif _UNSTORABLE.search(key):
        problem = "holds a NUL or what is not UTF-8"
    else:
        return key
    raise SchemaError(
        f"a row that only one of the databases has cannot be told by its key, which {problem}: a listing's "
        f"is a text of up to {_LONGEST_KEY} characters. Remove the row, or give it a key, and verify again"
    )


def _cause_fields(cause: Cause) -> dict[str, str | None]:
    return {
        "cause": cause.name,
        "experiment": cause.experiment,
        "experiment_uid": cause.experiment_uid,
        "requestId": cause.request_id,
    }
