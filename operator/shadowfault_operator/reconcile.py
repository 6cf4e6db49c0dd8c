"""One pass over one experiment: look, decide, do, until there is nothing to do."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from shadowfault_operator.conditions import Conditions
from shadowfault_operator.decisions import (
    Action,
    AddFinalizer,
    Delete,
    Inject,
    RemoveFinalizer,
    Rest,
    Restore,
    Retry,
    Transition,
    decide,
)
from shadowfault_operator.echoes import Echoes, fingerprint
from shadowfault_operator.endings import depends_on_surroundings
from shadowfault_operator.environment import referenced_config_maps
from shadowfault_operator.errors import ApiError, ConflictError, NotFoundError, RefusedError, UnavailableError
from shadowfault_operator.halt import LIFTED
from shadowfault_operator.known import target_key
from shadowfault_operator.model import Experiment, Key, Phase
from shadowfault_operator.nets import Objection
from shadowfault_operator.reasons import Reason
from shadowfault_operator.view import View, ahead

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from shadowfault_operator.clock import Clock
    from shadowfault_operator.environment import ConfigMaps
    from shadowfault_operator.halt import HaltState
    from shadowfault_operator.known import Known
    from shadowfault_operator.metrics import Metrics
    from shadowfault_operator.model import Status
    from shadowfault_operator.nets import Namespace
    from shadowfault_operator.ports import (
        Accounts,
        Announcer,
        Disarmer,
        Experiments,
        Surroundings,
        Targets,
        Watch,
    )
    from shadowfault_operator.target import Target

_log = structlog.get_logger(__name__)
# A pass from nothing to injected, or from injected to gone, takes six requests; conflicts repeat some.
_MOST_STEPS: Final = 24
# Of those that no pass waits for: they leave the connections to what is more urgent.
_EVENTS_AT_ONCE: Final = 4


class NotYetError(Exception):
    """The pass could not be finished and is to be tried again."""


class Reconciler:
    """Brings one experiment forward. Passes over the same key must not overlap."""

    def __init__(  # noqa: PLR0913 - one argument for each port
        self,
        *,
        experiments: Experiments,
        targets: Targets,
        surroundings: Surroundings,
        announcer: Announcer,
        disarmer: Disarmer,
        accounts: Accounts,
        known: Known,
        metrics: Metrics,
        clock: Clock,
        halt: Callable[[], HaltState] = lambda: LIFTED,
        watch: Watch | None = None,
        echoes: Echoes | None = None,
        pressing: Callable[[], bool] = lambda: False,
        later: Callable[[Key], None] = lambda _: None,
    ) -> None:
        self._experiments = experiments
        self._targets = targets
        self._surroundings = surroundings
        self._announcer = announcer
        self._disarmer = disarmer
        self._accounts = accounts
        self._known = known
        self._metrics = metrics
        self._now = clock.wall
        self._clock = clock
        self._halt = halt
        self._watch = watch
        self._echoes = Echoes(lambda _: None) if echoes is None else echoes
        self._pressing = pressing
        self._later = later
        # Reads that were refused in the pass that is under way, for those that a decision turned out to need.
        self._refused_reads: dict[Key, RefusedError] = {}
        # What is to be announced after the patch of the target that may follow, or before anything else.
        self._to_tell: dict[Key, tuple[Experiment, Objection, datetime]] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(_EVENTS_AT_ONCE)
        # When the end of an experiment was decided, by UID, on the monotonic clock.
        self._ended: dict[str, float] = {}

    async def reconcile(self, key: Key) -> datetime | None:
        """Do what there is to do; returns when to look again, or None for "when something changes".

        Raises:
            NotYetError, ApiError, UnavailableError: to be tried again.
        """
        self._echoes.begin(key)
        try:
            return await self._pass(key)
        except asyncio.CancelledError:
            self._to_tell.pop(key, None)  # an Event holds up no end of ours
            raise
        finally:
            self._tell_beside(key)
            self._echoes.end(key)

    async def _pass(self, key: Key) -> datetime | None:
        told = self._known.take_ending(key)
        seen = await self._look(key) if told is None else ahead(told)
        for _ in range(_MOST_STEPS):
            if seen is None:
                self._known.forget(key)
                self._accounts.forget(key)
                self._clock.forget(key)
                self._echoes.forget(key)
                self._follow(key, None)
                return None
            view = seen
            action = decide(view, self._clock.now(key), _new_seed)
            if isinstance(action, Rest):
                self._rest(key, action, view)
                return action.until
            if not isinstance(action, Inject | Restore):
                await self._tell(key)
            try:
                seen = await self._do(action, view)
            except (ConflictError, NotFoundError):
                # Nothing was written. A refused injection is known not to be there.
                untouched = isinstance(action, Inject) or view.untouched
                seen = await self._look(key)
                seen = seen and replace(seen, untouched=untouched)
            except RefusedError as error:
                await self._report(view.experiment, error)
                raise
            if seen is not None and _just_restored(view, seen) and self._pressing():
                # Others are still to be restored; that this one is let go and judged can wait for them.
                self._echoes.rest(key, fingerprint(seen.target))
                self._later(key)
                return None
        raise NotYetError(f"{key} did not come to rest in {_MOST_STEPS} steps")

    def _rest(self, key: Key, action: Rest, view: View) -> None:
        if action.ask and view.target is not None:
            self._accounts.ask(view.experiment, view.target)
        if action.until is None:
            self._clock.forget(key)
        self._follow(key, view)
        self._refused_reads.pop(key, None)
        if not self._known.settled(key) and view.complete:
            self._echoes.rest(key, fingerprint(view.target))

    async def _look(self, key: Key) -> View | None:
        self._refused_reads.pop(key, None)
        # What was seen last says what there is to read; each read that is not of use is done again below.
        foreseen, phase = self._known.glimpse(key)
        at_its_start = foreseen is not None and phase in {None, Phase.PENDING}
        experiment, early, namespace = await asyncio.gather(
            self._experiments.get(key),
            self._early_target(foreseen),
            self._namespace(key) if at_its_start else _nothing(),
        )
        if experiment is None:
            return None
        self._known.update(experiment)
        self._say_again(experiment)
        judged = depends_on_surroundings(experiment, self._clock.now(key))
        if judged and not at_its_start:
            namespace = await self._namespace(key)
        # A target that was read before the experiment moved on would seem to lack what is in it by now.
        if early is not None and foreseen == target_key(experiment) and experiment.status.phase is phase:
            (target,) = early
        else:
            target = await self._target(experiment)
        return View(
            experiment=experiment,
            target=target,
            namespace=namespace,
            config_maps=await self._config_maps(key, target) if judged else None,
            rivals=self._known.rivals(experiment),
            halt=self._halt(),
            answer=self._accounts.answer(key, experiment.uid),
            observation=self._watch.observation(experiment) if self._watch else None,
            judged=judged,
        )

    async def _early_target(self, key: Key | None) -> tuple[Target | None] | None:
        """What is there, beside the read of the experiment; None where that is to be asked for again."""
        try:
            return (await self._targets.get(key),) if key is not None else None
        except RefusedError:
            return None  # to be reported on the experiment, once that is read

    async def _target(self, experiment: Experiment) -> Target | None:
        key = target_key(experiment)
        try:
            return await self._targets.get(key) if key is not None else None
        except RefusedError as error:
            await self._report(experiment, error)
            raise

    def _follow(self, key: Key, view: View | None) -> None:
        """Have the metrics of what runs looked at, and of nothing else."""
        if self._watch is None:
            return
        if view is not None and view.target is not None and view.experiment.status.phase is Phase.RUNNING:
            self._watch.follow(view.experiment, view.target)
        else:
            self._watch.leave(key)

    async def _namespace(self, key: Key) -> Namespace | None:
        """None when it cannot be read: an end that does not depend on it must not wait for it."""
        try:
            return await self._surroundings.namespace(key.namespace)
        except (ApiError, UnavailableError) as error:
            self._not_read("namespace not read", key, error)
            return None

    def _not_read(self, what: str, key: Key, error: Exception) -> None:
        _log.warning(what, namespace=key.namespace, error=str(error))
        if isinstance(error, RefusedError):
            self._refused_reads[key] = error

    async def _config_maps(self, key: Key, target: Target | None) -> ConfigMaps | None:
        containers = [*target.containers, *target.init_containers] if target else []
        names = {name for container in containers for name in referenced_config_maps(container)}
        try:
            return await self._surroundings.config_maps(key.namespace, names) if names else {}
        except (ApiError, UnavailableError) as error:
            self._not_read("ConfigMaps not read", key, error)
            return None

    async def _do(  # noqa: PLR0911 - one for each action
        self, action: Action, view: View
    ) -> View | None:
        experiment = view.experiment
        match action:
            case Retry():
                refused = self._refused_reads.get(experiment.key)
                if refused is not None:
                    await self._report(experiment, refused)
                raise NotYetError(f"{experiment.key}: {action.why}")
            case AddFinalizer():
                return self._seen(view, await self._experiments.add_finalizer(experiment))
            case RemoveFinalizer():
                return self._seen(view, await self._experiments.remove_finalizer(experiment))
            case Delete():
                await self._experiments.delete(experiment)
                return await self._look(experiment.key)
            case Transition():
                return await (self._end_at_once if view.ahead else self._transition)(action, view)
            case Inject():
                target = await self._targets.inject(self._recorded(experiment), action.overlay)
                self._metrics.injections.inc()
                return replace(view, target=target, untouched=False)
            case Restore():
                self._disarm_once(view, experiment.status, time.monotonic())
                target = await self._targets.restore(self._recorded(experiment), action.body)
                return replace(view, target=target)
            case Rest():
                return view

    async def _end_at_once(self, action: Transition, view: View) -> View | None:
        """Store the end that the experiment itself asks for, and see to its target beside that.

        The write is refused when the experiment has changed since that was told. The target that is read here
        is what the next step restores: what is known to run is injected by nobody any more. Of an experiment
        that is being deleted it is restored beside the write as well: the deletion is on record already, and
        cannot be taken back, so that whoever looks next decides the same.
        """
        experiment, decided = view.experiment, time.monotonic()
        key, after = self._recorded(experiment), experiment.with_status(action.status)

        async def see_to_target() -> Target | None:
            target = await self._targets.get(key)
            self._disarm_once(replace(view, target=target), action.status, decided)
            if not experiment.deleting:
                return target
            to_be = replace(view, experiment=after, target=target, ahead=False)
            following = decide(to_be, self._clock.now(experiment.key), _new_seed)
            if not isinstance(following, Restore):
                return target
            return await self._targets.restore(key, following.body)

        stored, target = await asyncio.gather(
            self._transition(action, view), see_to_target(), return_exceptions=True
        )
        if isinstance(stored, BaseException):
            raise stored
        if isinstance(target, BaseException):
            return await self._look(experiment.key)
        return replace(stored, target=target, ahead=False)

    async def _transition(self, action: Transition, view: View) -> View:
        experiment, status = view.experiment, action.status
        if status.phase is Phase.RECOVERING and not view.ahead:
            self._disarm_once(view, status, time.monotonic())
        # Stored first: in a conflict another has moved it on, and nobody is told what did not happen.
        try:
            written = await self._experiments.set_status(experiment, status)
        except RefusedError as error:
            if action.required:
                raise
            # An object that the schema no longer takes is ended and released all the same.
            _log.warning("status not stored", experiment=str(experiment.key), error=str(error))
            written = experiment.with_status(status)
        except UnavailableError:
            # It may be stored, and whoever looks next has no reason to announce it then.
            self._announce_next(experiment, action.announce)
            raise
        if written.status.phase is not Phase.RUNNING:
            self._follow(experiment.key, None)
        self._announce_next(experiment, action.announce)
        if written.status.phase is not experiment.status.phase:
            self._count(written)
        if status.verdict is not None and not experiment.judged:
            self._accounts.forget(experiment.key)
            self._metrics.verdicts.labels(status.verdict.result.value).inc()
        return self._seen(view, written)

    def _disarm_once(self, view: View, status: Status, decided: float) -> None:
        """Tell the pods, at the end of a run and when its recovery is taken up after a restart."""
        experiment = view.experiment
        if experiment.uid in self._ended:
            return
        self._ended[experiment.uid] = decided
        if view.target is not None and status.injection is not None:
            self._disarmer.disarm(
                experiment.key.namespace, view.target, status.injection.container, experiment.uid
            )

    def _announce_next(self, experiment: Experiment, what: Objection | None) -> None:
        """Announce it, but after the patch of the target that may follow: no restore waits for an Event."""
        if what is not None:
            self._to_tell[experiment.key] = (experiment, what, self._now())

    def _say_again(self, experiment: Experiment) -> None:
        """Why a run has ended whose recovery another process began: it may have died before it said so."""
        status = experiment.status
        reason = Reason.titled(status.reason)
        if status.phase is Phase.RECOVERING and experiment.uid not in self._ended and reason is not None:
            self._announce_next(experiment, Objection(reason, status.message))

    async def _tell(self, key: Key) -> None:
        untold = self._to_tell.pop(key, None)
        if untold is not None:
            await self._announcer.announce(*untold)

    def _tell_beside(self, key: Key) -> None:
        """Announce what is left to be, beside the passes to come: the end of a run does not wait for it."""
        untold = self._to_tell.pop(key, None)
        if untold is not None:
            task = asyncio.create_task(self._tell_in_turn(*untold))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell_in_turn(self, experiment: Experiment, what: Objection, now: datetime) -> None:
        async with self._turns:
            await self._announcer.announce(experiment, what, now)

    def _seen(self, view: View, experiment: Experiment) -> View:
        self._known.update(experiment)
        return replace(view, experiment=experiment)

    def _count(self, after: Experiment) -> None:
        status = after.status
        _log.info(
            "experiment moved",
            experiment=str(after.key),
            uid=after.uid,
            phase=status.phase and status.phase.value,
            reason=status.reason,
            message=status.message,
        )
        if after.dry_run:
            # Nothing was kept out of a target and nothing taken out of one.
            return
        if status.phase is Phase.REFUSED:
            self._metrics.refusals.labels(status.reason).inc()
        if status.phase is Phase.FINISHED:
            self._metrics.recoveries.labels(status.reason).inc()
            ended = self._ended.pop(after.uid, None)
            if ended is not None:
                self._metrics.recovery_seconds.observe(time.monotonic() - ended)
            overrun = self._now() - status.expires_at if status.expires_at else None
            if overrun is not None and overrun.total_seconds() >= 0:
                self._metrics.overrun_seconds.observe(overrun.total_seconds())

    async def _report(self, experiment: Experiment, error: RefusedError) -> None:
        """Say in the status that the API server refuses what has to be done."""
        why = Objection(Reason.API_REFUSED, f"{error.request}: {error.message}")
        now = self._now()
        conditions = Conditions(experiment.status.conditions, experiment.generation, now).stalled(
            why.reason.title, why.message
        )
        await self._announcer.announce(experiment, why, now)
        if conditions == experiment.status.conditions:
            return
        try:
            await self._experiments.set_status(experiment, replace(experiment.status, conditions=conditions))
        except (ApiError, UnavailableError) as second:
            _log.warning("refusal not reported", experiment=str(experiment.key), error=str(second))

    @staticmethod
    def _recorded(experiment: Experiment) -> Key:
        injection = experiment.status.injection
        if injection is None:
            raise AssertionError("a target is touched only after it is recorded")
        return Key(experiment.key.namespace, injection.target_name)


def _just_restored(before: View, after: View) -> bool:
    """Whether that is stored, of an experiment whose end nobody waits for."""
    was, now = before.experiment, after.experiment
    stored = was.resource_version != now.resource_version
    moved = (was.status.phase, now.status.phase) == (Phase.RECOVERING, Phase.FINISHED)
    return stored and moved and not now.deleting


async def _nothing() -> None:
    """In the place of a read that is not needed."""


def _new_seed() -> str:
    return secrets.token_hex(8)
