"""What to do next with an experiment: a pure function of what is seen and the time.

Each decision is one request to the API server. The next one is taken from what that request returned, or
from a fresh look after a crash, so that the operator can die between any two of them: the record of what the
target had is stored before the target is touched, the reason of an end before anything is restored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from shadowfault.config import EXPIRES_AT, FAIL_RATE
from shadowfault_operator.conditions import METRICS_AVAILABLE, Conditions
from shadowfault_operator.endings import (
    asked_to_end,
    effective_rate,
    end_by_surroundings,
    stop_condition_met,
    target_lost,
)
from shadowfault_operator.injection import (
    Overlay,
    environment,
    is_injected,
    overlay,
    record,
    record_from_target,
    restoration,
)
from shadowfault_operator.model import Experiment, Injection, InvalidSpec, Phase, Spec, Status, lengthened
from shadowfault_operator.nets import NETS, Objection, chosen_container
from shadowfault_operator.preview import preview
from shadowfault_operator.reasons import Reason
from shadowfault_operator.verdict import Finding, Result, judge
from shadowfault_operator.view import UnknownError, View

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from shadowfault_operator.model import Json
    from shadowfault_operator.target import Target

_VERDICTS: Final = {
    Result.PASSED: Reason.VERDICT_PASSED,
    Result.FAILED: Reason.VERDICT_FAILED,
    Result.INCONCLUSIVE: Reason.VERDICT_INCONCLUSIVE,
}


@dataclass(frozen=True)
class Rest:
    """Nothing to do before `until`, or before something changes.

    `ask`: meanwhile the target is to be asked for the account; its answer is something that changes.
    """

    until: datetime | None = None
    ask: bool = False


@dataclass(frozen=True)
class Retry:
    """Something that has to be known could not be read."""

    why: str


@dataclass(frozen=True)
class AddFinalizer:
    """Keep the experiment from vanishing while it has something in a target."""


@dataclass(frozen=True)
class RemoveFinalizer:
    """Let it go."""


@dataclass(frozen=True)
class Delete:
    """Its time after the end is over: delete the very object that was looked at."""


@dataclass(frozen=True)
class Transition:
    """Write this status, and one Event where `announce` is given.

    `required` is true when nothing may follow unless it is stored.
    """

    status: Status
    announce: Objection | None = None
    required: bool = False


@dataclass(frozen=True)
class Inject:
    """Patch the target."""

    overlay: Overlay


@dataclass(frozen=True)
class Restore:
    """Undo it by this strategic merge patch."""

    body: Json


Action: TypeAlias = Rest | Retry | AddFinalizer | RemoveFinalizer | Delete | Transition | Inject | Restore


def decide(view: View, now: datetime, new_seed: Callable[[], str]) -> Action:
    """The next step for one experiment."""
    try:
        action = _decide(view, now, new_seed)
    except UnknownError as unknown:
        return Retry(str(unknown))
    return (_unstall(view.experiment, now) or action) if isinstance(action, Rest) else action


def _unstall(experiment: Experiment, now: datetime) -> Transition | None:
    """What was refused before is done by now: nothing stalls the experiment any more."""
    status, stalled = experiment.status, Reason.API_REFUSED.title
    if status.phase is None or not any(item.get("reason") == stalled for item in status.conditions):
        return None
    conditions = Conditions(status.conditions, experiment.generation, now)
    return Transition(
        replace(status, conditions=conditions.of(status.phase, status.reason or "Unknown", status.message))
    )


def _decide(  # noqa: PLR0911 - one for each phase
    view: View, now: datetime, new_seed: Callable[[], str]
) -> Action:
    experiment, status = view.experiment, view.experiment.status
    if status.injection is None and view.target is not None:
        found = record_from_target(view.target, experiment)
        if found is not None:
            return _end(experiment, _lost(experiment), now, injection=found)
    match status.phase:
        case Phase.FINISHED | Phase.REFUSED:
            return _settle(view, now)
        case Phase.RECOVERING:
            return _recover(view, now)
        case Phase.RUNNING:
            return _run(view, now)
        case Phase.PENDING | None if status.injection is not None and not experiment.dry_run:
            return _start(view, status.injection, now)
        case _ if experiment.deleting:
            return _settle(view, now)
        case _:
            return _admit(view, now, new_seed)


def _lost(experiment: Experiment) -> Objection:
    if experiment.deleting:
        return Objection(Reason.DELETED, "the experiment was deleted")
    return Objection(
        Reason.RECORD_LOST,
        "the status no longer says what the target had before; what the experiment wrote is taken out",
    )


def _settle(view: View, now: datetime) -> Action:
    """A final phase: nothing of ours may be left, the finalizer goes, the status names the current spec.

    Then it is deleted, at the time it asks for.
    """
    experiment, status = view.experiment, view.experiment.status
    if status.injection is not None and is_injected(view.target, status.injection):
        return _end(experiment, _lost(experiment), now)
    if experiment.has_finalizer:
        return RemoveFinalizer()
    if not experiment.deleting and status.observed_generation != experiment.generation:
        return Transition(replace(status, observed_generation=experiment.generation))
    if experiment.unjudged:
        return _judge(view, now)
    due = experiment.due_for_deletion
    if experiment.deleting or due is None:
        return Rest()
    return Delete() if now >= due else Rest(until=due)


def _judge(view: View, now: datetime) -> Action:
    """Restored and released, so that nobody waits for this: the verdict, from the target's own account."""
    experiment, status = view.experiment, view.experiment.status
    answer = view.answer if view.target is not None else Finding.TARGET_GONE
    if answer is None:
        return Rest(ask=True)
    verdict = judge(answer, now)
    conditions = Conditions(status.conditions, experiment.generation, now).judged(verdict)
    said = Objection(_VERDICTS[verdict.result], f"{verdict.reason}: {verdict.message}")
    return Transition(replace(status, verdict=verdict, conditions=conditions), announce=said)


def _admit(view: View, now: datetime, new_seed: Callable[[], str]) -> Action:
    """Before anything is recorded: every net, then the finalizer, then the record."""
    experiment, spec = view.experiment, view.experiment.spec
    if isinstance(spec, Spec) and spec.suspend:
        # Suspended between the finalizer and the record: nothing is in the target, and nothing is to hold it.
        return RemoveFinalizer() if experiment.has_finalizer else _wait(experiment, now)
    if isinstance(spec, Spec) and spec.dry_run:
        return _show(view, spec, now, new_seed)
    objection = view.objection(NETS)
    if objection is not None:
        return _refuse(experiment, objection, now)
    container = chosen_container(spec, view.target) if isinstance(spec, Spec) and view.target else None
    if isinstance(spec, InvalidSpec) or view.target is None or container is None:
        raise AssertionError("the nets let through what they are there to stop")
    if not experiment.has_finalizer:
        return AddFinalizer()
    seed = spec.seed or new_seed()
    started_at = now.replace(microsecond=0)
    expires_at = started_at + spec.duration
    injection = record(view.target, container, environment(experiment, spec, seed, expires_at))
    status = replace(
        experiment.status,
        seed=seed,
        effective_rate=spec.rate,
        started_at=started_at,
        expires_at=expires_at,
        injection=injection,
    )
    accepted = Objection(
        Reason.ACCEPTED, f"the safety nets passed; injecting into Deployment {view.target.name}"
    )
    return _advance(experiment, status, Phase.PENDING, accepted, now, required=True)


def _show(view: View, spec: Spec, now: datetime, new_seed: Callable[[], str]) -> Action:
    """A dry run is over at once, refused as the real one would be or finished; it takes no finalizer."""
    experiment, now = view.experiment, now.replace(microsecond=0)
    objections = view.objections(NETS)
    seed = spec.seed or new_seed()
    shown = preview(experiment, spec, view.target, objections, seed=seed, expires_at=now + spec.duration)
    status = replace(experiment.status, preview=shown, injection=None, finished_at=now)
    if objections:
        return _advance(experiment, status, Phase.REFUSED, objections[0], now)
    passed = Objection(
        Reason.DRY_RUN, f"the safety nets passed; nothing was injected into Deployment {spec.target_ref.name}"
    )
    return _advance(experiment, status, Phase.FINISHED, passed, now)


def _start(view: View, injection: Injection, now: datetime) -> Action:
    """Recorded, but not known to be injected."""
    experiment, status, target = view.experiment, view.experiment.status, view.target
    if is_injected(target, injection):
        injected = Objection(
            Reason.INJECTED,
            f"container {injection.container} of Deployment {injection.target_name} runs with "
            f"{FAIL_RATE}={injection.environment.get(FAIL_RATE)} until "
            f"{injection.environment.get(EXPIRES_AT)}",
        )
        return _advance(experiment, status, Phase.RUNNING, injected, now)
    over = asked_to_end(experiment, now) or target_lost(target, injection)
    if over is not None:
        return _end(experiment, over, now)
    if target is None:
        raise AssertionError("a missing target is the end of an experiment")
    if target.generation != injection.target_generation and not view.untouched:
        interrupted = Objection(
            Reason.INTERRUPTED,
            "the target changed while the injection was under way, and nothing of it is there",
        )
        return _end(experiment, interrupted, now)
    objection = view.objection(NETS)
    if objection is not None:
        return _refuse(experiment, objection, now)
    return _inject(experiment, target, injection)


def _inject(experiment: Experiment, target: Target, injection: Injection) -> Action:
    """Let through by the nets: the record has to fit the target, and the finalizer to be there."""
    if target.generation != injection.target_generation:
        container = target.container(injection.container)
        if container is None:
            raise AssertionError("the nets let through a target without its container")
        again = record(target, container, injection.environment)
        return Transition(replace(experiment.status, injection=again), required=True)
    if not experiment.has_finalizer:
        return AddFinalizer()
    return Inject(overlay(target, injection))


def _run(view: View, now: datetime) -> Action:
    """Injected: look for an end, honour a lowered rate, else rest until the deadline."""
    experiment, status = view.experiment, view.experiment.status
    over = (
        asked_to_end(experiment, now)
        or end_by_surroundings(view, status.injection)
        or stop_condition_met(view)
    )
    if over is not None:
        return _end(experiment, over, now)
    if not experiment.has_finalizer:
        # Someone took it off by hand; without it a delete would leave the environment behind.
        return AddFinalizer()
    rate = effective_rate(view.target, status.injection)
    if rate is not None and rate != status.effective_rate:
        lowered = Objection(
            Reason.RATE_LOWERED, f"{FAIL_RATE} was set to {rate!r}: honoured, the run goes on"
        )
        changed = replace(
            status,
            effective_rate=rate,
            message=lowered.message,
            transitions=lengthened(status.transitions, Phase.RUNNING, lowered.reason.title, now),
        )
        return Transition(changed, announce=lowered)
    return _note_metrics(view, now) or Rest(until=status.expires_at)


def _note_metrics(view: View, now: datetime) -> Transition | None:
    """Whether stop conditions can be judged, as a condition; None where the status says so already."""
    experiment, status, seen = view.experiment, view.experiment.status, view.observation
    if seen is None or seen.availability is None:
        return None
    said = seen.availability
    baseline = seen.baseline if status.unexplained_baseline is None else status.unexplained_baseline
    before = next((item for item in status.conditions if item.get("type") == METRICS_AVAILABLE), {})
    known = before.get("reason") == said.reason.title
    if known and baseline == status.unexplained_baseline:
        return None
    conditions = Conditions(status.conditions, experiment.generation, now).metrics_available(
        said.available, said.reason.title, said.message
    )
    # That all is well is worth an Event only after it was not.
    worth_telling = not known and (bool(before) or not said.available)
    return Transition(
        replace(status, unexplained_baseline=baseline, conditions=conditions),
        announce=Objection(said.reason, said.message) if worth_telling else None,
    )


def _recover(view: View, now: datetime) -> Action:
    """Ended: restore until there is nothing left to restore."""
    experiment, status = view.experiment, view.experiment.status
    if view.target is not None and status.injection is not None:
        body = restoration(view.target, status.injection)
        if body is not None:
            return Restore(body)
    finished = replace(
        status,
        phase=Phase.FINISHED,
        finished_at=now.replace(microsecond=0),
        observed_generation=experiment.generation,
        transitions=lengthened(status.transitions, Phase.FINISHED, status.reason, now),
        conditions=Conditions(status.conditions, experiment.generation, now).of(
            Phase.FINISHED, status.reason, status.message
        ),
    )
    return Transition(
        finished, announce=Objection(Reason.RECOVERED, "nothing of the experiment is left in the target")
    )


def _wait(experiment: Experiment, now: datetime) -> Action:
    """Suspended before the start."""
    status = experiment.status
    if status.phase is Phase.PENDING and status.observed_generation == experiment.generation:
        return Rest()
    waiting = Objection(Reason.WAITING, "spec.suspend is true: nothing is injected until it is false")
    return _advance(experiment, status, Phase.PENDING, waiting, now)


def _refuse(experiment: Experiment, objection: Objection, now: datetime) -> Transition:
    status = replace(experiment.status, injection=None, started_at=None, expires_at=None, effective_rate=None)
    return _advance(experiment, status, Phase.REFUSED, objection, now)


def _end(
    experiment: Experiment, objection: Objection, now: datetime, *, injection: Injection | None = None
) -> Transition:
    # What ends once more is judged once more.
    status = replace(experiment.status, verdict=None)
    if injection is not None:
        status = replace(status, injection=injection)
    return _advance(experiment, status, Phase.RECOVERING, objection, now)


def _advance(  # noqa: PLR0913 - what a transition is made of
    experiment: Experiment,
    status: Status,
    phase: Phase,
    why: Objection,
    now: datetime,
    *,
    required: bool = False,
) -> Transition:
    title = why.reason.title
    stays = (status.phase, status.reason) == (phase, title)
    changed = replace(
        status,
        phase=phase,
        reason=title,
        message=why.message,
        observed_generation=experiment.generation,
        finished_at=now.replace(microsecond=0) if phase is Phase.REFUSED else status.finished_at,
        created_by=status.created_by or experiment.created_by,
        transitions=status.transitions if stays else lengthened(status.transitions, phase, title, now),
        conditions=Conditions(status.conditions, experiment.generation, now).of(phase, title, why.message),
    )
    return Transition(changed, announce=why, required=required)
