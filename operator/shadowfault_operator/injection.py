"""Patches, as pure functions: what goes into a Deployment and how it comes out again.

Measured on kube-apiserver 1.34, and the ground these functions stand on:

- A server-side apply over an entry with `valueFrom` is invalid, so such an entry is overlaid by one
  strategic merge patch, under the same field manager, that also nulls `valueFrom`.
- An empty apply to release ownership deletes an entry that we added and a person has overridden by
  `kubectl set env`: the person owns only its value, we the entry. Taking our managers out of managedFields
  in the restoring patch itself releases everything, deletes nothing, and needs no second rollout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shadowfault.config import ENABLED, EXPERIMENT, EXPERIMENT_UID, EXPIRES_AT, FAIL_RATE, SCOPE, SEED
from shadowfault_operator.durations import format_instant
from shadowfault_operator.model import Injection, OriginalEntry
from shadowfault_operator.target import MANAGER

if TYPE_CHECKING:
    from datetime import datetime

    from shadowfault_operator.model import Experiment, Json, Spec
    from shadowfault_operator.target import Container, Target

NAMES: Final = (ENABLED, FAIL_RATE, SEED, SCOPE, EXPIRES_AT, EXPERIMENT, EXPERIMENT_UID)


def environment(experiment: Experiment, spec: Spec, seed: str, expires_at: datetime) -> dict[str, str]:
    """The variables that an experiment writes."""
    return {
        ENABLED: "true",
        FAIL_RATE: repr(spec.rate),
        SEED: seed,
        SCOPE: spec.scope.value,
        EXPIRES_AT: format_instant(expires_at),
        EXPERIMENT: str(experiment.key),
        EXPERIMENT_UID: experiment.uid,
    }


def noted(
    target: Target,
    container: Container,
    variables: dict[str, str],
    originals: tuple[OriginalEntry, ...] = (),
) -> Injection:
    """The record that `variables` are, or are about to be, in the target as it is now."""
    return Injection(
        target_name=target.name,
        target_uid=target.uid,
        target_generation=target.generation,
        restarted_at=target.restarted_at,
        container=container.name,
        environment=variables,
        originals=originals,
    )


def record(target: Target, container: Container, variables: dict[str, str]) -> Injection:
    """What has to be known to undo the injection of `variables`, taken before it is done."""
    originals = tuple(
        OriginalEntry(entry, target.owners(container.name, entry["name"]))
        for entry in container.env
        if entry["name"] in variables
    )
    # An apply brings shared entries into its own order: so that is the one they are in already.
    present = {original.name: variables[original.name] for original in originals}
    return noted(target, container, present | variables, originals)


def record_from_target(target: Target, experiment: Experiment) -> Injection | None:
    """What this experiment has in the target, read off the target itself: when the status has lost it.

    Either of its two marks will do, should someone have taken the other out.
    """
    marks = {EXPERIMENT_UID: experiment.uid, EXPERIMENT: str(experiment.key)}
    for container in target.containers:
        left = [name for name in marks if MANAGER in target.owners(container.name, name)]
        if left and all(container.value(name) == marks[name] for name in left):
            variables = {name: value for name in NAMES if (value := container.value(name)) is not None}
            return noted(target, container, variables)
    return None


@dataclass(frozen=True)
class Overlay:
    """How to inject: body of the patch, and whether it is a server-side apply (else a strategic merge)."""

    body: Json
    apply: bool


def overlay(target: Target, injection: Injection) -> Overlay:
    """The patch that injects; refused by the API server (409) when the target has changed since."""
    entries: list[Json] = [{"name": name, "value": value} for name, value in injection.environment.items()]
    references = {original.name for original in injection.originals if "valueFrom" in original.entry}
    if references:
        entries = [
            {**entry, "valueFrom": None} if entry["name"] in references else entry for entry in entries
        ]
        return Overlay(_patch(target, injection.container, entries), apply=False)
    body = _patch(target, injection.container, entries)
    return Overlay(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            **body,
            "metadata": {"name": target.name, **body["metadata"]},
        },
        apply=True,
    )


def restoration(target: Target, injection: Injection) -> Json | None:
    """The strategic merge patch that undoes everything at once; None when nothing of ours is left.

    What someone else has set or removed since is left as it is. Our field managers go in the same patch; when
    originals were put back, the API server notes shadowfault-restore as the owner of these, and the next call
    returns a patch that takes that out too.
    """
    if target.uid != injection.target_uid or _held_by_another(target, injection):
        return None
    entries = [
        _restored(injection, name) for name in ours(target, injection) if _differs(target, injection, name)
    ]
    if not entries and not target.has_our_managers:
        return None
    body = _patch(target, injection.container, entries) if entries else {"metadata": _metadata(target)}
    # An empty list would mean "leave them"; one empty item means "none".
    body["metadata"]["managedFields"] = target.managed_fields_of_others() or [{}]
    return body


def _differs(target: Target, injection: Injection, name: str) -> bool:
    original, container = injection.original(name), target.container(injection.container)
    return original is None or container is None or container.entry(name) != original.entry


def _held_by_another(target: Target, injection: Injection) -> bool:
    """Whether the target carries the environment of an experiment that came after this one."""
    return any(
        uid != injection.environment.get(EXPERIMENT_UID)
        for container in target.containers
        if (uid := container.value(EXPERIMENT_UID)) is not None
        and MANAGER in target.owners(container.name, EXPERIMENT_UID)
    )


def _has_traces(target: Target, injection: Injection) -> bool:
    """Whether anything in the target tells of this injection: a field manager of ours, or its UID."""
    container = target.container(injection.container)
    uid = container.value(EXPERIMENT_UID) if container else None
    return target.has_our_managers or (uid is not None and uid == injection.environment.get(EXPERIMENT_UID))


def _restored(injection: Injection, name: str) -> Json:
    original = injection.original(name)
    if original is None:
        return {"$patch": "delete", "name": name}
    return {"name": name, "value": original.entry.get("value"), "valueFrom": original.entry.get("valueFrom")}


def _patch(target: Target, container: str, entries: list[Json]) -> Json:
    return {
        "metadata": _metadata(target),
        "spec": {"template": {"spec": {"containers": [{"name": container, "env": entries}]}}},
    }


def _metadata(target: Target) -> Json:
    return {"resourceVersion": target.resource_version}


def foreign_owners(target: Target, injection: Injection, name: str) -> frozenset[str]:
    """Who took a variable over since the injection: owners of its value, but us and those before us."""
    original = injection.original(name)
    before = original.managers if original else frozenset()
    return target.owners(injection.container, name) - {MANAGER} - before


def is_ours(target: Target, injection: Injection, name: str) -> bool:
    """Whether a variable of the target is still the one we wrote, by its owners and else by its value.

    A first owner who wrote the same value as we do shares it with us; one who writes another value takes it.
    """
    container = target.container(injection.container)
    if container is None or container.entry(name) is None or foreign_owners(target, injection, name):
        return False
    owned = MANAGER in target.owners(injection.container, name)
    return owned or container.value(name) == injection.environment.get(name)


def ours(target: Target, injection: Injection) -> list[str]:
    """The variables of the target that are still as we wrote them."""
    if target.uid != injection.target_uid or _held_by_another(target, injection):
        return []
    if not _has_traces(target, injection):
        # Never injected: a value that a first owner has set meanwhile, equal to ours by chance, is theirs.
        return []
    return [name for name in injection.environment if is_ours(target, injection, name)]


def is_injected(target: Target | None, injection: Injection) -> bool:
    """Whether the injection took place: its UID, which nothing else writes, is in the target."""
    return target is not None and EXPERIMENT_UID in ours(target, injection)
