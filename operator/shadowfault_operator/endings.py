"""Why a run ends: what was asked for, what someone did by hand, what happened around it.

What a person set stays as set; an end only says that the experiment is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shadowfault import ChaosConfig, ConfigError
from shadowfault.config import ENABLED, EXPERIMENT, EXPERIMENT_UID, EXPIRES_AT, FAIL_RATE, SCOPE, SEED
from shadowfault_operator.injection import foreign_owners, is_ours
from shadowfault_operator.model import Phase, Spec
from shadowfault_operator.nets import CONTINUOUS, Objection
from shadowfault_operator.reasons import Reason
from shadowfault_operator.stopconditions import judge
from shadowfault_operator.view import UnknownError, View

if TYPE_CHECKING:
    from datetime import datetime

    from shadowfault_operator.model import Experiment, Injection
    from shadowfault_operator.target import Target


def asked_to_end(experiment: Experiment, now: datetime) -> Objection | None:
    """Ends that need no look at the target."""
    expires_at = experiment.status.expires_at
    if experiment.deleting:
        return Objection(Reason.DELETED, "the experiment was deleted")
    if expires_at is None or now >= expires_at:
        return Objection(Reason.EXPIRED, "the deadline has come")
    if isinstance(experiment.spec, Spec) and experiment.spec.suspend:
        return Objection(Reason.SUSPENDED, "spec.suspend became true")
    return None


def depends_on_surroundings(experiment: Experiment, now: datetime) -> bool:
    """Whether the next step of it may depend on its namespace and on ConfigMaps.

    Nothing does once it is over, nor where a run is over by its own spec, deadline or deletion.
    """
    match experiment.status.phase:
        case Phase.FINISHED | Phase.REFUSED | Phase.RECOVERING:
            return False
        case Phase.RUNNING:
            return asked_to_end(experiment, now) is None
        case _:
            return True


def target_lost(target: Target | None, injection: Injection) -> Objection | None:
    if target is None:
        return Objection(Reason.TARGET_GONE, f"Deployment {injection.target_name} was deleted")
    if target.uid != injection.target_uid:
        return Objection(
            Reason.TARGET_RECREATED, f"Deployment {injection.target_name} was deleted and created again"
        )
    return None


def end_by_surroundings(view: View, injection: Injection | None) -> Objection | None:
    """Ends seen in the target and its namespace."""
    target = view.target
    if injection is None:
        return Objection(
            Reason.RECORD_LOST, "the status no longer says what was injected, nor does the target"
        )
    lost = target_lost(target, injection)
    if lost is not None or target is None:
        return lost
    try:
        objection = view.objection(CONTINUOUS)
    except UnknownError:
        # Read again at the next look; until then the other ends count.
        objection = None
    return objection or _end_by_hand(target, injection) or _end_by_rollout(target, injection)


def stop_condition_met(view: View) -> Objection | None:
    """The end that the target's own metrics call for, as far as they could be read."""
    spec = view.experiment.spec
    if view.observation is None or not isinstance(spec, Spec):
        return None
    return judge(spec.stop_conditions, view.observation.figures)


def _end_by_rollout(target: Target, injection: Injection) -> Objection | None:
    if target.restarted_at != injection.restarted_at:
        return Objection(Reason.RESTARTED, "the target was restarted by `kubectl rollout restart`")
    if target.replicas == 0:
        return Objection(Reason.SCALED_TO_ZERO, "the target was scaled to zero")
    if target.rollout_failed:
        return Objection(Reason.PODS_NOT_READY, "the injected pods did not become ready in time")
    return None


_TAKEN: Final[dict[str, Reason]] = {
    ENABLED: Reason.OVERRIDDEN,
    SEED: Reason.SEED_CHANGED,
    SCOPE: Reason.SCOPE_CHANGED,
    EXPIRES_AT: Reason.ENVIRONMENT_CHANGED,
    EXPERIMENT: Reason.ENVIRONMENT_CHANGED,
    EXPERIMENT_UID: Reason.ENVIRONMENT_CHANGED,
}


def _end_by_hand(target: Target, injection: Injection) -> Objection | None:
    """A variable that someone else has set or removed since."""
    container = target.container(injection.container)
    present = {name for name in injection.environment if container is not None and container.entry(name)}
    for name, reason in _TAKEN.items():
        if name in present and not is_ours(target, injection, name):
            return Objection(reason, f"{name} was set{_by(target, injection, name)}; it stays as set")
    if FAIL_RATE in present and effective_rate(target, injection) is None:
        return Objection(
            Reason.RATE_CHANGED,
            f"{FAIL_RATE} was set{_by(target, injection, FAIL_RATE)} above the experiment's rate",
        )
    missing = sorted(set(injection.environment) - present)
    if missing:
        return Objection(Reason.ENVIRONMENT_REMOVED, f"{', '.join(missing)} was removed from the target")
    return None


def _by(target: Target, injection: Injection, name: str) -> str:
    owners = foreign_owners(target, injection, name) or target.owners(injection.container, name)
    return f" by {', '.join(sorted(owners))}" if owners else " by someone else"


def effective_rate(target: Target | None, injection: Injection | None) -> float | None:
    """The rate in force, as the SDK reads it; None when it is unreadable or above the experiment's own."""
    if target is None or injection is None:
        return None
    container = target.container(injection.container)
    entry = container.entry(FAIL_RATE) if container else None
    value = container.value(FAIL_RATE) if container else None
    if entry is None or value is None:
        return None
    try:
        rate = ChaosConfig.from_env({FAIL_RATE: value}).fail_rate
        limit = ChaosConfig.from_env({FAIL_RATE: injection.environment[FAIL_RATE]}).fail_rate
    except (ConfigError, KeyError):
        return None
    return rate if rate <= limit else None
