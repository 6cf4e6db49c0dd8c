"""One experiment and one target as a table: what a history of requests leaves, without an API server.

Merging is as simple as can be here: tests/cluster has what the real API server makes of these patches. What
is true to it is the resourceVersion: a write that was decided on an older object is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from shadowfault.config import EXPERIMENT, EXPERIMENT_UID
from shadowfault_operator.decisions import (
    Action,
    AddFinalizer,
    Inject,
    RemoveFinalizer,
    Rest,
    Restore,
    Transition,
    decide,
)
from shadowfault_operator.model import FINALIZER, Status, parse_experiment, parse_status, status_document
from shadowfault_operator.nets import Namespace
from shadowfault_operator.target import Target
from shadowfault_operator.view import View
from shadowfault_testing.objects import container, deployment, experiment, owned

if TYPE_CHECKING:
    from datetime import datetime

    from shadowfault_operator.model import Experiment

OURS: Final = "shadowfault"
ALLOWED: Final = {"chaos.shadowfault.dev/allowed": "true"}
_CREATED: Final = "2026-03-01T12:00:00Z"
_MOST_STEPS: Final = 20


class StaleError(Exception):
    """The object has changed since the view was taken: nothing was written."""


@dataclass
class World:
    """One target as a table of entries with their owners, and one experiment; each request is one step."""

    now: datetime
    env: dict[str, str] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=lambda: dict(ALLOWED))
    replicas: int = 1
    restarted: str = ""
    generation: int = 1
    suspend: bool = False
    deleting: bool = False
    finalizer: bool = False
    status: Status = field(default_factory=Status)
    injections: int = 0
    # Bumped by whatever writes to the one or the other.
    target_version: int = 1
    experiment_version: int = 1

    @property
    def gone(self) -> bool:
        """Whether the API server has dropped the experiment."""
        return self.deleting and not self.finalizer

    @property
    def marked(self) -> bool:
        """Whether the target itself says whose injection it carries."""
        return any(self.owners.get(name) == OURS for name in (EXPERIMENT, EXPERIMENT_UID))

    def view(self) -> View:
        """What an operator that looks now would see."""
        return View(self.experiment(), self.target(), Namespace("staging", dict(self.labels)), {})

    def target(self) -> Target:
        entries = [{"name": name, "value": value} for name, value in self.env.items()]
        raw = deployment(containers=[container(env=entries)], replicas=self.replicas)
        raw["metadata"] |= {
            "uid": "target",
            "namespace": "staging",
            "generation": self.generation,
            "resourceVersion": str(self.target_version),
            "managedFields": [owned(owner, [name]) for name, owner in self.owners.items()],
        }
        raw["spec"]["template"]["metadata"]["annotations"] = {
            "kubectl.kubernetes.io/restartedAt": self.restarted
        }
        return Target(raw)

    def experiment(self) -> Experiment:
        mine = experiment(suspend=self.suspend)
        mine["metadata"] |= {
            "namespace": "staging",
            "uid": "mine",
            "resourceVersion": str(self.experiment_version),
            "creationTimestamp": _CREATED,
            "finalizers": [FINALIZER] if self.finalizer else [],
            **({"deletionTimestamp": _CREATED} if self.deleting else {}),
        }
        return parse_experiment(mine).with_status(self.status)

    def step(self) -> bool:
        """Let an operator that has just looked do one thing; False when it rests."""
        if self.gone:
            return False
        view = self.view()
        action = decide(view, self.now, lambda: "seed")
        if isinstance(action, Rest):
            return False
        self.carry_out(action, view)
        return True

    def settle(self) -> None:
        """Let it go on until it rests."""
        for _ in range(_MOST_STEPS):
            if not self.step():
                return
        raise AssertionError(f"no rest: {self.status}")

    def carry_out(self, action: Action, view: View) -> View:
        """Write what was decided on `view`; returns the view with what the write returned.

        Raises:
            StaleError: what is written to has changed since.
        """
        match action:
            case AddFinalizer() | RemoveFinalizer():
                self._claim_experiment(view)
                self.finalizer = isinstance(action, AddFinalizer)
            case Transition():
                self._claim_experiment(view)
                # Through the document and back: what is not stored is not known after a crash.
                self.status = parse_status(status_document(action.status))
            case Inject():
                self._inject(action.overlay.body)
                return replace(view, target=self.target())
            case Restore():
                self._restore(action.body)
                return replace(view, target=self.target())
            case _:
                raise AssertionError(action)
        return replace(view, experiment=self.experiment())

    def _claim_experiment(self, view: View) -> None:
        if self.gone or view.experiment.resource_version != str(self.experiment_version):
            raise StaleError
        self.experiment_version += 1

    def _claim_target(self, body: dict[str, Any]) -> None:
        if body["metadata"]["resourceVersion"] != str(self.target_version):
            raise StaleError
        self.target_version += 1

    def _inject(self, body: dict[str, Any]) -> None:
        self._claim_target(body)
        self.injections += 1
        self.generation += 1
        for entry in _entries(body):
            self.env[entry["name"]] = entry["value"]
            self.owners[entry["name"]] = OURS

    def _restore(self, body: dict[str, Any]) -> None:
        self._claim_target(body)
        kept = {item["manager"] for item in body["metadata"]["managedFields"] if item}
        for entry in _entries(body) if "spec" in body else []:
            name = entry["name"]
            assert self.owners.get(name, OURS) in {OURS, "manifest"}, f"{name} belongs to {self.owners[name]}"
            if entry.get("$patch") == "delete":
                del self.env[name]
                self.owners.pop(name, None)
            else:
                self.env[name] = entry["value"]
                self.owners[name] = "shadowfault-restore"
        if "spec" in body:
            self.generation += 1
            kept.add("shadowfault-restore")
        self.owners = {name: owner for name, owner in self.owners.items() if owner in kept}

    # What people, tools and time do

    def set(self, name: str, value: str | None) -> None:
        """Set a variable of the target by hand; None removes it."""
        self._touch_target()
        if value is None:
            self.env.pop(name, None)
            self.owners.pop(name, None)
        elif self.env.get(name) != value:
            self.env[name] = value
            self.owners[name] = "person"

    def scale(self, replicas: int) -> None:
        self._touch_target()
        self.replicas = replicas

    def restart(self, stamp: str) -> None:
        self._touch_target()
        self.restarted = stamp

    def ask(self, *, suspend: bool | None = None, delete: bool = False) -> None:
        """Set spec.suspend, or delete the experiment."""
        self.experiment_version += 1
        self.suspend = self.suspend if suspend is None else suspend
        self.deleting |= delete

    def wipe_status(self) -> None:
        self.experiment_version += 1
        self.status = Status()

    def _touch_target(self) -> None:
        self.generation += 1
        self.target_version += 1


def _entries(body: dict[str, Any]) -> list[dict[str, Any]]:
    return list(body["spec"]["template"]["spec"]["containers"][0]["env"])
