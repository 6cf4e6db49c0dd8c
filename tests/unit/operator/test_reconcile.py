"""What a pass does when the API server does not do as asked, request by request."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from shadowfault_operator.clock import Clock
from shadowfault_operator.errors import ConflictError, UnavailableError
from shadowfault_operator.known import Known
from shadowfault_operator.metrics import Metrics
from shadowfault_operator.model import Key, Phase
from shadowfault_operator.nets import Namespace
from shadowfault_operator.reconcile import Reconciler

if TYPE_CHECKING:
    from shadowfault_operator.model import Experiment, Status
    from shadowfault_operator.nets import Objection

KEY = Key("staging", "shadow")


class Cluster:
    """Experiment and target as the API server has them; the write of a status meets with `errors` first."""

    def __init__(self, scene: Any, *seen: Status | None, errors: tuple[Exception, ...] = ()) -> None:
        self._scene = scene
        self._seen = list(seen)
        self._errors = list(errors)
        self.said: list[str] = []
        self.stored: list[Status] = []

    async def get(self, _key: Key) -> Experiment:
        return self._scene.experiment(self._seen.pop(0) if len(self._seen) > 1 else self._seen[0])  # type: ignore[no-any-return]

    async def set_status(self, experiment: Experiment, status: Status) -> Experiment:
        if self._errors:
            raise self._errors.pop(0)
        self.stored.append(status)
        self._seen = [status]
        return experiment.with_status(status)

    async def announce(self, _experiment: Experiment, what: Objection, _now: object) -> None:
        self.said.append(what.reason.title)

    async def target(self, _key: Key) -> Any:
        return self._scene.target()

    async def namespace(self, name: str) -> Namespace:
        return Namespace(name, self._scene.labels)

    def reconciler(self) -> Reconciler:
        known = Known()
        return Reconciler(
            experiments=self,  # type: ignore[arg-type]
            targets=SimpleNamespace(get=self.target),  # type: ignore[arg-type]
            surroundings=SimpleNamespace(namespace=self.namespace),  # type: ignore[arg-type]
            announcer=self,
            disarmer=SimpleNamespace(disarm=lambda *_: None),
            accounts=SimpleNamespace(answer=lambda *_: None, ask=lambda *_: None, forget=lambda _: None),
            known=known,
            metrics=Metrics(known),
            clock=Clock(lambda: self._scene.now),
        )


async def test_a_pass_that_was_overtaken_says_nothing(scene: Any) -> None:
    """Another operator recorded and injected between the look at the experiment and that at the target."""
    running = scene.running()
    cluster = Cluster(scene, None, running, errors=(ConflictError(409, "Conflict", "changed", "PATCH"),))
    assert await cluster.reconciler().reconcile(KEY) == running.expires_at
    assert (cluster.said, cluster.stored) == ([], [])


async def test_what_may_have_been_stored_is_said(scene: Any) -> None:
    """Whoever looks next finds the phase reached, and no reason to say so."""
    pending = replace(scene.running(), phase=Phase.PENDING, reason="Accepted")
    cluster = Cluster(scene, pending, errors=(UnavailableError("no answer"),))
    with pytest.raises(UnavailableError):
        await cluster.reconciler().reconcile(KEY)
    assert cluster.said == ["Injected"]
