"""Chaos in a Deployment that no experiment stands behind: our own remains, and what people set by hand. Pure.

Remains are what the operator owns in a target whose experiment is gone: after a finalizer that was taken off
by hand, or a status wiped together with the marks. They are taken out; what was there before is not known any
more. What a person set is theirs: it is counted and left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shadowfault.config import ENABLED, EXPERIMENT, EXPERIMENT_UID, parse_switch
from shadowfault_operator.injection import NAMES, noted
from shadowfault_operator.target import MANAGER

if TYPE_CHECKING:
    from collections.abc import Collection

    from shadowfault_operator.model import Experiment, Injection
    from shadowfault_operator.target import Container, Target


@dataclass(frozen=True)
class Behind:
    """Who may stand behind an injection: experiments that exist."""

    uids: frozenset[str]
    keys: frozenset[str]
    targets: frozenset[str]

    @classmethod
    def of(cls, experiments: Collection[Experiment], namespace: str) -> Behind:
        """Those of one namespace. `targets` are UIDs of Deployments that a record says are injected into."""
        here = [experiment for experiment in experiments if experiment.key.namespace == namespace]
        return cls(
            uids=frozenset(experiment.uid for experiment in here),
            keys=frozenset(str(experiment.key) for experiment in here),
            targets=frozenset(
                experiment.status.injection.target_uid
                for experiment in here
                if experiment.status.injection is not None and not _settled(experiment)
            ),
        )


def remains(target: Target, behind: Behind) -> Injection | None:
    """What is ours in the target though nobody stands behind it, as the record to undo it by."""
    if target.uid in behind.targets:
        return None
    for container in target.containers:
        owned = [name for name in NAMES if MANAGER in target.owners(container.name, name)]
        if owned and not _claimed(container, owned, behind):
            return noted(target, container, {name: container.value(name) or "" for name in owned})
    return None


def unmanaged(target: Target) -> bool:
    """Whether someone else has switched chaos on in the target."""
    return any(
        _switched_on(container.value(ENABLED)) and MANAGER not in target.owners(container.name, ENABLED)
        for container in target.containers
    )


def _claimed(container: Container, owned: list[str], behind: Behind) -> bool:
    uid = container.value(EXPERIMENT_UID) if EXPERIMENT_UID in owned else None
    key = container.value(EXPERIMENT) if EXPERIMENT in owned else None
    return uid in behind.uids if uid is not None else key in behind.keys


def _settled(experiment: Experiment) -> bool:
    phase = experiment.status.phase
    return phase is not None and phase.final and not experiment.has_finalizer


def _switched_on(value: str | None) -> bool:
    try:
        return bool(value) and parse_switch(value or "")
    except ValueError:
        return False
