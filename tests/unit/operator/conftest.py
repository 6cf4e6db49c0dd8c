"""Views of a cluster that is not there: what the operator would see at a point in an experiment's life."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shadowfault_operator.halt import LIFTED, HaltState
from shadowfault_operator.injection import environment, record
from shadowfault_operator.model import FINALIZER, Experiment, Phase, Spec, Status, parse_experiment
from shadowfault_operator.nets import Namespace
from shadowfault_operator.target import MANAGER, Target
from shadowfault_operator.view import View
from shadowfault_testing.objects import container, deployment, experiment, owned

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
Json = dict[str, Any]


@dataclass
class Scene:
    """A namespace, a Deployment and an experiment, to be bent by a test before it takes a view."""

    now: datetime = NOW
    labels: dict[str, str] = field(default_factory=lambda: {"chaos.shadowfault.dev/allowed": "true"})
    namespace: str = "staging"
    containers: list[Json] = field(
        default_factory=lambda: [container(env=[{"name": "NODE_ENV", "value": "staging"}])]
    )
    managed: list[Json] = field(default_factory=list)
    spec: Json = field(default_factory=dict)
    metadata: Json = field(default_factory=dict)
    deployment: Json = field(default_factory=dict)
    target_exists: bool = True
    halt: HaltState = LIFTED

    def target(self, *, version: int = 7, generation: int = 3) -> Target:
        raw = deployment(containers=self.containers)
        raw["spec"] |= self.deployment
        raw["metadata"] |= {
            "namespace": self.namespace,
            "uid": "target-uid",
            "generation": generation,
            "resourceVersion": str(version),
            "managedFields": [*self.managed],
        }
        return Target(raw)

    def experiment(self, status: Status | None = None) -> Experiment:
        raw = experiment(**self.spec)
        raw["metadata"] |= {
            "namespace": self.namespace,
            "uid": "experiment-uid",
            "resourceVersion": "5",
            "generation": 1,
            "creationTimestamp": "2026-03-01T11:59:00Z",
            **self.metadata,
        }
        parsed = parse_experiment(raw)
        return parsed if status is None else parsed.with_status(status)

    def view(self, status: Status | None = None, **changes: Any) -> View:
        seen = View(
            experiment=self.experiment(status),
            target=self.target() if self.target_exists else None,
            namespace=Namespace(self.namespace, self.labels),
            config_maps={},
            halt=self.halt,
        )
        return replace(seen, **changes)

    def recorded(self) -> Status:
        """The status once what the target had is on record; the finalizer is there by then."""
        self.metadata["finalizers"] = [FINALIZER]
        parsed = self.experiment()
        assert isinstance(parsed.spec, Spec)
        expires_at = self.now + parsed.spec.duration
        target = self.target()
        variables = environment(parsed, parsed.spec, "test", expires_at)
        return Status(
            phase=Phase.PENDING,
            reason="Accepted",
            observed_generation=1,
            seed="test",
            effective_rate=parsed.spec.rate,
            started_at=self.now,
            expires_at=expires_at,
            injection=record(target, target.containers[0], variables),
        )

    def running(self) -> Status:
        """The status of a run; the target has the environment from here on."""
        status = self.recorded()
        assert status.injection is not None
        env = {entry["name"]: entry for entry in self.containers[0].get("env", [])}
        env |= {name: {"name": name, "value": value} for name, value in status.injection.environment.items()}
        self.containers[0]["env"] = list(env.values())
        self.managed.append(owned(MANAGER, list(status.injection.environment), operation="Apply"))
        return replace(status, phase=Phase.RUNNING, reason="Injected")

    def someone_sets(self, name: str, value: str | None, *, by: str = "kubectl-set") -> None:
        """As `kubectl set env` does: the value and its ownership change, or the entry goes (None)."""
        env = [entry for entry in self.containers[0].get("env", []) if entry["name"] != name]
        for managed in self.managed:
            entries = managed["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"][
                'k:{"name":"api"}'
            ]
            entries["f:env"].pop(f'k:{{"name":"{name}"}}', None)
        if value is not None:
            env.append({"name": name, "value": value})
            self.managed.append(owned(by, [name]))
        self.containers[0]["env"] = env

    def later(self, **delta: float) -> datetime:
        return self.now + timedelta(**delta)


@pytest.fixture
def scene() -> Scene:
    """Everything in order: a first look would accept the experiment."""
    return Scene()
