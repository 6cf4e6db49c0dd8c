"""The installed injector: decides, counts calls, and ends on time or when it is told to."""

from __future__ import annotations

import itertools
import math
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from shadowfault.decision import message, prepared, threshold
from shadowfault.surfaces import Surface, surfaces_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault.config import ChaosConfig


class Fault(NamedTuple):
    """One decision to fail, with what joins it to its experiment.

    `key` is the call's number (int) or the request's id (str); with the seed and `attempt` it can be drawn
    again. `experiment` and `experiment_uid` are None where no ChaosExperiment is behind it.
    """

    entity_type: str
    operation: str
    key: int | str
    attempt: int
    experiment: str | None
    experiment_uid: str | None


class InjectedFault(Exception):  # noqa: N818 - the name of the contract; it is a fault, not a defect
    """Raised by a service in place of the operation that was to fail."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(f"injected fault: {fault.operation} of {fault.entity_type}")


class Description(TypedDict):
    """The `chaos` part of a health document. `expiresAt` is RFC 3339 in UTC."""

    enabled: bool
    active: bool
    failRate: float
    scope: str
    seed: str
    expiresAt: str | None
    experiment: str | None
    experimentUid: str | None
    disarmed: bool


class _Site:
    """One (entity type, operation): how often it was asked, how often it failed, and its hash, begun.

    `number` gives the next call's number; it is one C call, which threads cannot interrupt. The two states
    have been fed up to the key of a first attempt.
    """

    __slots__ = ("any_attempt", "by_number", "by_request", "faults", "number")

    def __init__(self, seed: str, entity_type: str, operation: str) -> None:
        state = prepared(seed, entity_type, operation)
        self.any_attempt = state.copy
        by_number, by_request = state.copy(), state.copy()
        by_number.update(b"0:n")
        by_request.update(b"0:r")
        self.by_number = by_number.copy
        self.by_request = by_request.copy
        self.number = itertools.count().__next__
        self.faults = 0


class FaultInjector:
    """Decides which operations fail. Safe to share between threads.

    It keeps one counter per (entity_type, operation): pass fixed names such as "create", never an id.

    The deadline holds twice: by the wall clock, and by the time left at construction counted on the
    monotonic clock, so that a wall clock set back does not prolong a run. Once ended it stays ended.

    `clock` gives Unix seconds, `monotonic` seconds from any origin; both are for tests.
    """

    def __init__(
        self,
        config: ChaosConfig,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self._clock = clock
        self._monotonic = monotonic
        reach = surfaces_of(config.scope) if config.enabled and config.fail_rate > 0 else ()
        self._surfaces = frozenset(reach)
        self._threshold = threshold(config.fail_rate)
        self._wall_deadline = config.expires_at.timestamp() if config.expires_at else math.inf
        self._monotonic_deadline = monotonic() + self._wall_deadline - clock()
        self._timed = config.expires_at is not None
        self._disarmed = False
        self._over = not config.enabled
        self._lock = threading.Lock()
        self._sites: dict[tuple[str, str], _Site] = {}
        # The same sites under each surface in reach: one lookup decides about reach and finds the site.
        self._reached: dict[tuple[Surface, str, str], _Site] = {}

    @property
    def active(self) -> bool:
        """Whether a fault is still possible: enabled, not disarmed, and the deadline not reached."""
        if self._over:
            return False
        if self._clock() < self._wall_deadline and self._monotonic() < self._monotonic_deadline:
            return True
        self._over = True
        return False

    def check(
        self,
        surface: Surface,
        entity_type: str,
        operation: str,
        *,
        request_id: str | None = None,
        attempt: int = 0,
    ) -> Fault | None:
        """Decide about one operation; None means carry on.

        With a `request_id` the decision is that request's wherever it is made; without one it is that of
        the n-th call of this (entity_type, operation) in this process. An empty id is no id.
        """
        # Long for speed: a decision is to take no more than a microsecond, most of which is the hash.
        if self._over:
            return None
        # As `active` has it, without the call.
        if self._timed and not (
            self._clock() < self._wall_deadline and self._monotonic() < self._monotonic_deadline
        ):
            self._over = True
            return None
        site = self._reached.get((surface, entity_type, operation))
        if site is None:
            if surface not in self._surfaces:
                return None
            site = self._reach(surface, entity_type, operation)
        key: int | str
        if attempt:
            key = request_id or site.number()
            state = site.any_attempt()
            state.update(message(key, attempt))
        elif request_id:
            key = request_id
            state = site.by_request()
            state.update(request_id.encode("utf-8", "surrogatepass"))
        else:
            key = site.number()
            state = site.by_number()
            state.update(b"%d" % key)
        if state.digest() >= self._threshold:
            return None
        with self._lock:
            site.faults += 1
        return Fault(entity_type, operation, key, attempt, self.config.experiment, self.config.experiment_uid)

    def faults(self) -> dict[tuple[str, str], int]:
        """How many faults there were, by (entity type, operation) of every place that was asked about."""
        with self._lock:
            return {name: site.faults for name, site in self._sites.items()}

    def disarm(self, experiment_uid: str) -> bool:
        """Stop for good if `experiment_uid` is this injector's experiment; True if it is stopped now.

        Any other UID changes nothing and gives False. Telling it twice is as good as once.
        """
        if experiment_uid != self.config.experiment_uid:
            return False
        self._disarmed = self._over = True
        return True

    def describe(self) -> Description:
        """The state for a health document."""
        expires_at = self.config.expires_at
        return {
            "enabled": self.config.enabled,
            "active": self.active,
            "failRate": self.config.fail_rate,
            "scope": self.config.scope.value,
            "seed": self.config.seed,
            "expiresAt": expires_at.isoformat().replace("+00:00", "Z") if expires_at else None,
            "experiment": self.config.experiment,
            "experimentUid": self.config.experiment_uid,
            "disarmed": self._disarmed,
        }

    def _reach(self, surface: Surface, entity_type: str, operation: str) -> _Site:
        with self._lock:
            site = self._sites.get((entity_type, operation))
            if site is None:
                site = self._sites[entity_type, operation] = _Site(self.config.seed, entity_type, operation)
            self._reached[surface, entity_type, operation] = site
            return site
