"""The experiments that exist, as last seen: who is on which target, without asking the API server."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shadowfault_operator.durations import format_instant, parse_instant
from shadowfault_operator.model import Experiment, Key, Phase, Spec
from shadowfault_operator.nets import Rival
from shadowfault_operator.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

_ON_THE_WAY: Final = frozenset({Phase.PENDING, Phase.RECOVERING})
_WAITING: Final = Reason.WAITING.title


@dataclass(frozen=True, slots=True)
class _Seen:
    uid: str
    version: int
    target: Key | None
    phase: Phase | None
    started: bool
    unsettled: bool
    dry_run: bool
    created_at: str
    reason: str
    since: datetime
    expires_at: datetime | None


class Known:
    """An index over experiments. Fed by watch events, by the resync and by our own writes."""

    def __init__(self) -> None:
        self._seen: dict[Key, _Seen] = {}
        self._by_target: defaultdict[Key, set[Key]] = defaultdict(set)
        # Those that run and whose own object asks for the end, whole; until a pass takes them.
        self._ending: dict[Key, Experiment] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def update(self, experiment: Experiment) -> bool:
        """Remember the experiment; False when this version of it, or a later one, was known already."""
        before = self._seen.get(experiment.key)
        version = _version(experiment.resource_version)
        if before and before.uid == experiment.uid and version <= before.version:
            return False
        self.forget(experiment.key)
        status = experiment.status
        target = target_key(experiment)
        self._seen[experiment.key] = _Seen(
            uid=experiment.uid,
            version=version,
            target=target,
            phase=status.phase,
            started=status.injection is not None,
            unsettled=status.phase is None
            or not status.phase.final
            or experiment.has_finalizer
            or experiment.unjudged,
            dry_run=experiment.dry_run,
            created_at=format_instant(experiment.created_at),
            reason=sys.intern(status.reason),
            since=_since(experiment),
            expires_at=status.expires_at,
        )
        if target is not None:
            self._by_target[target].add(experiment.key)
        if _asks_to_end(experiment):
            self._ending[experiment.key] = experiment
        return True

    def forget(self, key: Key, uid: str | None = None) -> None:
        """Forget what has that key and, if given, that UID."""
        seen = self._seen.get(key)
        if seen is None or (uid is not None and seen.uid != uid):
            return
        del self._seen[key]
        self._ending.pop(key, None)
        if seen.target is None:
            return
        others = self._by_target[seen.target]
        others.discard(key)
        if not others:
            del self._by_target[seen.target]

    def keep_only(self, keys: Iterable[Key]) -> None:
        """Forget all others: what was deleted while nobody watched."""
        for key in set(self._seen) - set(keys):
            self.forget(key)

    def unsettled(self) -> list[Key]:
        """Those that may need something done."""
        return [key for key, seen in self._seen.items() if seen.unsettled]

    def unsettled_on(self, target: Key) -> list[Key]:
        return [key for key in self._by_target.get(target, ()) if self._seen[key].unsettled]

    def unsettled_in(self, namespace: str) -> list[Key]:
        return [key for key in self.unsettled() if key.namespace == namespace]

    def rivals(self, experiment: Experiment) -> tuple[Rival, ...]:
        """Other experiments on the same target that are neither finished nor refused. A dry run is none."""
        target = target_key(experiment)
        keys = self._by_target.get(target, set()) - {experiment.key} if target else ()
        found = ((key, self._seen[key]) for key in keys)
        return tuple(
            Rival(key.name, seen.uid, seen.started, (seen.created_at, seen.uid))
            for key, seen in sorted(found)
            if not seen.dry_run and (seen.phase is None or not seen.phase.final)
        )

    def glimpse(self, key: Key) -> tuple[Key | None, Phase | None]:
        """The target and the phase as last seen; nothing of one that was never seen."""
        seen = self._seen.get(key)
        return (None, None) if seen is None else (seen.target, seen.phase)

    def take_ending(self, key: Key) -> Experiment | None:
        """The newest version seen, where it runs and asks for its end; given away once."""
        return self._ending.pop(key, None)

    def settled(self, key: Key) -> bool:
        """Whether nothing more is to be done with it, as far as is known."""
        seen = self._seen.get(key)
        return seen is None or not seen.unsettled

    def phases(self) -> Counter[Phase]:
        """How many experiments are in each phase; one that nobody has looked at yet counts as Pending."""
        return Counter(seen.phase or Phase.PENDING for seen in self._seen.values())

    def reasons(self) -> Counter[tuple[Phase, str]]:
        """How many experiments are in each phase for each reason; the reason is empty before there is one."""
        return Counter((seen.phase or Phase.PENDING, seen.reason) for seen in self._seen.values())

    def stuck(self, before: datetime) -> Counter[Phase]:
        """How many are on the way, to their start or their end, and have been since before that time."""
        return Counter(
            phase
            for phase, seen in ((seen.phase or Phase.PENDING, seen) for seen in self._seen.values())
            if phase in _ON_THE_WAY and seen.reason != _WAITING and seen.since < before
        )

    def overdue_seconds(self, now: datetime) -> float:
        """How long the one that is longest past its deadline is so; 0 when all that are past it are over."""
        passed = (
            (now - seen.expires_at).total_seconds()
            for seen in self._seen.values()
            if seen.expires_at is not None and not (seen.phase or Phase.PENDING).final
        )
        return max(0.0, max(passed, default=0.0))


def _asks_to_end(experiment: Experiment) -> bool:
    """Whether a run is over by its own object, whatever its target and the time."""
    status, spec = experiment.status, experiment.spec
    asks = experiment.deleting or (isinstance(spec, Spec) and spec.suspend)
    return asks and status.phase is Phase.RUNNING and status.injection is not None


def _since(experiment: Experiment) -> datetime:
    """When it came into its phase, as far as that matters: for one that is on its way."""
    status = experiment.status
    if status.phase is Phase.RECOVERING:
        # It was Ready as long as it ran.
        moved = next((item for item in status.conditions if item.get("type") == "Ready"), {})
        try:
            return parse_instant(moved["lastTransitionTime"])
        except (KeyError, TypeError, ValueError):
            return status.expires_at or experiment.created_at
    return status.started_at or experiment.created_at


def _version(resource_version: str) -> int:
    """Versions of one object are numbers that grow (KEP-5504)."""
    return int(resource_version)


def target_key(experiment: Experiment) -> Key | None:
    """What the experiment is on: what it was injected into, else what it asks for."""
    if experiment.status.injection is not None:
        return Key(experiment.key.namespace, experiment.status.injection.target_name)
    if isinstance(experiment.spec, Spec):
        return Key(experiment.key.namespace, experiment.spec.target_ref.name)
    return None
