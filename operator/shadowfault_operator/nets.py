"""The safety nets: one small named check each. Any one of them is enough to keep an experiment out.

NETS are checked before an injection, in this order; CONTINUOUS are checked as well while it runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from shadowfault.config import ENABLED, EXPERIMENT, EXPERIMENT_UID, parse_switch
from shadowfault_operator.durations import format_instant
from shadowfault_operator.environment import Resolved, Unresolvable, node_env
from shadowfault_operator.halt import LIFTED, HaltState
from shadowfault_operator.handover import handed_over
from shadowfault_operator.marks import production_label, production_word
from shadowfault_operator.model import ALLOWED_LABEL, Experiment, InvalidSpec, Spec
from shadowfault_operator.reasons import Reason
from shadowfault_operator.target import MANAGER, Container, Target

if TYPE_CHECKING:
    from shadowfault_operator.environment import ConfigMaps


@dataclass(frozen=True)
class Namespace:
    """Name and labels of the namespace, read live."""

    name: str
    labels: dict[str, str]


@dataclass(frozen=True)
class Rival:
    """Another experiment on the same target that is neither finished nor refused."""

    name: str
    uid: str
    started: bool
    seniority: tuple[str, str]


@dataclass(frozen=True)
class Situation:
    """All that the nets look at. `target` is None when there is none."""

    experiment: Experiment
    namespace: Namespace
    target: Target | None
    config_maps: ConfigMaps
    rivals: tuple[Rival, ...] = ()
    halt: HaltState = LIFTED


@dataclass(frozen=True)
class Objection:
    """Why not."""

    reason: Reason
    message: str


Net: TypeAlias = Callable[[Situation], Objection | None]


def chosen_container(spec: Spec, target: Target) -> Container | None:
    """The container under test: the named one, or the only one."""
    if spec.target_ref.container is not None:
        return target.container(spec.target_ref.container)
    return target.containers[0] if len(target.containers) == 1 else None


def spec_is_valid(situation: Situation) -> Objection | None:
    spec = situation.experiment.spec
    return Objection(Reason.INVALID_SPEC, spec.problem) if isinstance(spec, InvalidSpec) else None


def nothing_is_halted(situation: Situation) -> Objection | None:
    reason = situation.halt.reason
    return None if reason is None else Objection(Reason.HALTED, f"everything is halted: {reason}")


def namespace_has_opted_in(situation: Situation) -> Objection | None:
    if situation.namespace.labels.get(ALLOWED_LABEL) == "true":
        return None
    return Objection(
        Reason.NAMESPACE_NOT_ALLOWED,
        f'namespace {situation.namespace.name} does not carry the label {ALLOWED_LABEL}: "true"',
    )


def namespace_name_is_not_production(situation: Situation) -> Objection | None:
    mark = production_word(situation.namespace.name)
    if mark is None:
        return None
    return Objection(
        Reason.PRODUCTION_NAMESPACE,
        f"namespace {situation.namespace.name} is production by its name ({mark})",
    )


def namespace_labels_are_not_production(situation: Situation) -> Objection | None:
    mark = production_label(situation.namespace.labels)
    if mark is None:
        return None
    return Objection(
        Reason.PRODUCTION_NAMESPACE,
        f"namespace {situation.namespace.name} is production by its label {mark}",
    )


def target_exists(situation: Situation) -> Objection | None:
    if situation.target is not None:
        return None
    spec = situation.experiment.spec
    name = spec.target_ref.name if isinstance(spec, Spec) else "?"
    return Objection(
        Reason.TARGET_NOT_FOUND, f"there is no Deployment {name} in namespace {situation.namespace.name}"
    )


def target_labels_are_not_production(situation: Situation) -> Objection | None:
    mark = production_label(situation.target.labels) if situation.target else None
    if mark is None:
        return None
    return Objection(Reason.PRODUCTION_TARGET, f"the target is production by its label {mark}")


def container_is_known(situation: Situation) -> Objection | None:
    spec, target = situation.experiment.spec, situation.target
    if isinstance(spec, InvalidSpec) or target is None or chosen_container(spec, target) is not None:
        return None
    names = ", ".join(container.name for container in target.containers)
    if spec.target_ref.container is None:
        message = f"the target has the containers {names}: say which in spec.targetRef.container"
        return Objection(Reason.CONTAINER_AMBIGUOUS, message)
    return Objection(
        Reason.CONTAINER_NOT_FOUND,
        f"the target has no container {spec.target_ref.container}; its containers are {names}",
    )


def node_env_is_not_production(situation: Situation) -> Objection | None:
    """No container says production. Only the one under test has to be told for certain."""
    spec, target = situation.experiment.spec, situation.target
    if isinstance(spec, InvalidSpec) or target is None:
        return None
    chosen = chosen_container(spec, target)
    for container in [*target.containers, *target.init_containers]:
        resolution = node_env(container, situation.config_maps)
        if isinstance(resolution, Resolved) and production_word(resolution.value or ""):
            return Objection(
                Reason.PRODUCTION_TARGET, f"container {container.name} has NODE_ENV={resolution.value}"
            )
        if isinstance(resolution, Unresolvable) and chosen is not None and container.name == chosen.name:
            return Objection(
                Reason.NODE_ENV_UNRESOLVABLE,
                f"NODE_ENV of container {container.name} cannot be told: {resolution.why}; "
                "set it by `value` or from a ConfigMap",
            )
    return None


def environment_has_no_duplicates(situation: Situation) -> Objection | None:
    """The API server takes a list with a name twice, but merges into it are not defined."""
    spec, target = situation.experiment.spec, situation.target
    chosen = chosen_container(spec, target) if isinstance(spec, Spec) and target else None
    counts = Counter(entry.get("name") for entry in chosen.env) if chosen else Counter()
    doubled = sorted(str(name) for name, count in counts.items() if count > 1)
    if not doubled:
        return None
    return Objection(
        Reason.DUPLICATE_ENV,
        f"the container lists {', '.join(doubled)} more than once; remove the duplicates",
    )


def target_is_not_busy(situation: Situation) -> Objection | None:
    """One experiment a target. What is in it has it, else what started, else what is older.

    The order is total: of several that all know each other, in whatever state, exactly one passes.
    """
    experiment = situation.experiment
    holder = _holder(situation)
    if holder is not None:
        return Objection(Reason.TARGET_BUSY, f"experiment {holder} has this target")
    started = experiment.status.injection is not None
    mine = (not started, format_instant(experiment.created_at), experiment.uid)
    for rival in situation.rivals:
        if (not rival.started, *rival.seniority) < mine:
            return Objection(Reason.TARGET_BUSY, f"experiment {rival.name} has this target")
    return None


def _holder(situation: Situation) -> str | None:
    """The experiment whose environment is in the target, unless it is this one."""
    for container in situation.target.containers if situation.target else ():
        uid = container.value(EXPERIMENT_UID)
        ours = situation.target is not None and MANAGER in situation.target.owners(
            container.name, EXPERIMENT_UID
        )
        if uid and ours and uid != situation.experiment.uid:
            return container.value(EXPERIMENT) or uid
    return None


def chaos_is_not_enabled_by_hand(situation: Situation) -> Objection | None:
    spec, target = situation.experiment.spec, situation.target
    chosen = chosen_container(spec, target) if isinstance(spec, Spec) and target else None
    if chosen is None or target is None or not _switched_on(chosen.value(ENABLED)):
        return None
    owners = target.owners(chosen.name, ENABLED)
    if MANAGER in owners:
        return None
    by = f" by {', '.join(sorted(owners))}" if owners else ""
    return Objection(
        Reason.CHAOS_ALREADY_ENABLED,
        f"container {chosen.name} already has {ENABLED}=true, set{by}; unset it first",
    )


def _switched_on(value: str | None) -> bool:
    try:
        return value is not None and value != "" and parse_switch(value)
    except ValueError:
        return False


def rollouts_are_not_paused(situation: Situation) -> Objection | None:
    """A paused Deployment would take neither the injection nor its removal to the pods."""
    if situation.target is None or not situation.target.paused:
        return None
    return Objection(Reason.TARGET_PAUSED, "the target is paused: `kubectl rollout resume` it first")


def target_is_not_handed_over(situation: Situation) -> Objection | None:
    """Argo Rollouts and Flagger run copies of its pods: faults would not be where the traffic is."""
    holder = handed_over(situation.target) if situation.target else None
    if holder is None:
        return None
    return Objection(Reason.TARGET_HANDED_OVER, f"the target is in the hands of {holder}")


def target_has_replicas(situation: Situation) -> Objection | None:
    if situation.target is None or situation.target.replicas > 0:
        return None
    return Objection(Reason.TARGET_WITHOUT_REPLICAS, "the target has no replicas: there is nothing to test")


CONTINUOUS: Final[tuple[Net, ...]] = (
    nothing_is_halted,
    spec_is_valid,
    namespace_name_is_not_production,
    namespace_labels_are_not_production,
    namespace_has_opted_in,
    target_labels_are_not_production,
    target_is_not_handed_over,
    node_env_is_not_production,
)

NETS: Final[tuple[Net, ...]] = (
    nothing_is_halted,
    spec_is_valid,
    namespace_name_is_not_production,
    namespace_labels_are_not_production,
    namespace_has_opted_in,
    target_exists,
    target_labels_are_not_production,
    target_is_not_handed_over,
    container_is_known,
    environment_has_no_duplicates,
    node_env_is_not_production,
    target_is_not_busy,
    chaos_is_not_enabled_by_hand,
    rollouts_are_not_paused,
    target_has_replicas,
)


def all_objections(nets: tuple[Net, ...], situation: Situation) -> tuple[Objection, ...]:
    """What every net that holds says, in their order."""
    return tuple(objection for net in nets if (objection := net(situation)) is not None)


def first_objection(nets: tuple[Net, ...], situation: Situation) -> Objection | None:
    """What the first net that holds says; None when none does."""
    return next((objection for net in nets if (objection := net(situation)) is not None), None)
