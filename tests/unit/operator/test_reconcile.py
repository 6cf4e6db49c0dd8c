"""What a pass does when the API server does not do as asked, request by request."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from shadowfault_operator.clock import Clock
from shadowfault_operator.echoes import Echoes
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
        self.reads: list[str] = []
        self.namespace_away = False
        self.pressing = False
        self.late: list[Key] = []
        self.released = 0
        self.target_errors: list[Exception] = []
        self.disarmed: list[str] = []
        self.event: asyncio.Event | None = None
        # Set by a restore, which then fails; until then no status is stored.
        self.restored: asyncio.Event | None = None
        self._written = 0
        self.echoes = Echoes(lambda _: None)

    async def get(self, _key: Key) -> Experiment:
        self.reads.append("experiment")
        return self._scene.experiment(self._seen.pop(0) if len(self._seen) > 1 else self._seen[0])  # type: ignore[no-any-return]

    async def set_status(self, experiment: Experiment, status: Status) -> Experiment:
        if self._errors:
            raise self._errors.pop(0)
        if self.restored is not None:
            await self.restored.wait()
        self.stored.append(status)
        self._seen = [status]
        self._written += 1
        return replace(experiment.with_status(status), resource_version=str(10 + self._written))

    async def remove_finalizer(self, experiment: Experiment) -> Experiment:
        self.released += 1
        return replace(experiment, finalizers=())

    async def announce(self, _experiment: Experiment, what: Objection, _now: object) -> None:
        if self.event is not None:
            await self.event.wait()
        self.said.append(what.reason.title)

    async def target(self, _key: Key) -> Any:
        self.reads.append("target")
        if self.target_errors:
            raise self.target_errors.pop(0)
        return self._scene.target()

    async def restore(self, _key: Key, _body: object) -> Any:
        if self.restored is None:
            raise AttributeError("restore")
        self.restored.set()
        raise UnavailableError("no answer")

    async def namespace(self, name: str) -> Namespace | None:
        self.reads.append("namespace")
        if self.namespace_away:
            raise UnavailableError("no answer")
        return Namespace(name, self._scene.labels)

    def reconciler(self, *foreseen: Experiment) -> Reconciler:
        known = Known()
        for experiment in foreseen:
            known.update(experiment)
        return Reconciler(
            experiments=self,  # type: ignore[arg-type]
            targets=SimpleNamespace(get=self.target, restore=self.restore),  # type: ignore[arg-type]
            surroundings=SimpleNamespace(namespace=self.namespace),  # type: ignore[arg-type]
            announcer=self,
            disarmer=SimpleNamespace(disarm=lambda *told: self.disarmed.append(told[-1])),
            accounts=SimpleNamespace(answer=lambda *_: None, ask=lambda *_: None, forget=lambda _: None),
            known=known,
            metrics=Metrics(known),
            clock=Clock(lambda: self._scene.now),
            echoes=self.echoes,
            pressing=lambda: self.pressing,
            later=self.late.append,
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
    await asyncio.sleep(0)  # it is said beside what comes next
    assert cluster.said == ["Injected"]


async def test_the_next_pass_does_not_wait_for_the_last_event(scene: Any) -> None:
    """A delete may come in that very moment, and the API server may be slow to take Events."""
    pending = replace(scene.running(), phase=Phase.PENDING, reason="Accepted")
    cluster = Cluster(scene, pending)
    cluster.event = asyncio.Event()
    async with asyncio.timeout(10):
        assert await cluster.reconciler().reconcile(KEY) == pending.expires_at
    assert (cluster.stored[0].phase, cluster.said) == (Phase.RUNNING, [])
    cluster.event.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert cluster.said == ["Injected"]


@pytest.mark.parametrize(("reason", "said"), [("Overridden", ["Overridden"]), ("Made up", [])])
async def test_why_a_run_ended_is_said_by_whoever_takes_up_its_recovery(
    scene: Any, reason: str, said: list[str]
) -> None:
    """Its own operator may have died before it could; the Event has the same name, so there is one."""
    recovering = replace(scene.running(), phase=Phase.RECOVERING, reason=reason, message="by hand")
    cluster = Cluster(scene, recovering)
    with pytest.raises(AttributeError, match="restore"):
        await cluster.reconciler().reconcile(KEY)
    await asyncio.sleep(0)
    assert (cluster.said, cluster.disarmed) == (said, ["experiment-uid"])


async def test_an_end_by_deadline_reads_nothing_that_it_does_not_depend_on(scene: Any) -> None:
    running = scene.running()
    cluster = Cluster(scene, running)
    scene.now = running.expires_at
    reconciler = cluster.reconciler(scene.experiment(running))
    with pytest.raises(
        AttributeError, match="restore"
    ):  # the next request; nothing of a target is written here
        await reconciler.reconcile(KEY)
    assert (cluster.stored[0].phase, cluster.reads) == (Phase.RECOVERING, ["experiment", "target"])


def asked_to_end(scene: Any, how: str) -> Experiment:
    """A run whose own object asks for the end, as a watch tells of it."""
    running = scene.running()
    if how == "delete":
        scene.metadata["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    else:
        scene.spec["suspend"] = True
    return scene.experiment(running)  # type: ignore[no-any-return]


async def until_restored(cluster: Cluster, told: Experiment) -> None:
    # The next request; nothing of a target is written here.
    with pytest.raises(AttributeError, match="restore"):
        await cluster.reconciler(told).reconcile(KEY)


async def test_a_suspension_that_a_watch_tells_of_is_stored_before_anything_is_read(scene: Any) -> None:
    told = asked_to_end(scene, "suspend")
    cluster = Cluster(scene, told.status)
    await until_restored(cluster, told)
    stored = [(status.phase, status.reason) for status in cluster.stored]
    assert stored == [(Phase.RECOVERING, "SuspendedWhileRunning")]
    assert (cluster.reads, cluster.disarmed) == (["target"], [told.uid])


async def test_a_deleted_run_is_restored_beside_the_write_of_its_reason(scene: Any) -> None:
    """The deletion is on record and cannot be taken back, so the restore need not wait."""
    told = asked_to_end(scene, "delete")
    cluster = Cluster(scene, told.status)
    cluster.restored = asyncio.Event()
    with pytest.raises(UnavailableError):
        async with asyncio.timeout(10):
            await cluster.reconciler(told).reconcile(KEY)
    stored = [(status.phase, status.reason) for status in cluster.stored]
    assert stored == [(Phase.RECOVERING, "Deleted")]
    assert (cluster.reads[0], cluster.disarmed) == ("target", [told.uid])


async def test_what_has_moved_on_since_it_was_told_is_looked_at(scene: Any) -> None:
    told = asked_to_end(scene, "delete")
    recovering = replace(told.status, phase=Phase.RECOVERING, reason="Expired")
    cluster = Cluster(scene, recovering, errors=(ConflictError(409, "Conflict", "changed", "PATCH"),))
    await until_restored(cluster, told)
    # Another one has stored its end, and its reason stays.
    assert (cluster.stored, cluster.said) == ([], [])
    assert cluster.reads[:2] == ["target", "experiment"]
    assert cluster.disarmed == [told.uid]


async def test_a_target_that_could_not_be_read_beside_is_read_again(scene: Any) -> None:
    told = asked_to_end(scene, "delete")
    cluster = Cluster(scene, told.status)
    cluster.target_errors = [UnavailableError("no answer")]
    await until_restored(cluster, told)
    assert [status.phase for status in cluster.stored] == [Phase.RECOVERING]
    assert (cluster.reads.count("target"), cluster.disarmed) == (2, [told.uid])


async def test_only_what_runs_is_ended_without_a_look(scene: Any) -> None:
    """Whether something is in the target of one that is about to begin, the target has to say."""
    running = asked_to_end(scene, "delete").status
    pending = replace(running, phase=Phase.PENDING)
    for status in (pending, replace(running, injection=None)):
        cluster = Cluster(scene, status)
        await until_restored(cluster, scene.experiment(status))
        assert cluster.reads[0] == "experiment"


@pytest.mark.parametrize("phase", [Phase.RECOVERING, Phase.FINISHED, Phase.REFUSED])
async def test_what_is_over_depends_on_nothing_around_it(scene: Any, phase: Phase) -> None:
    cluster = Cluster(scene, replace(scene.recorded(), phase=phase))
    await cluster.reconciler().reconcile(KEY)
    assert "namespace" not in cluster.reads


async def test_what_runs_is_judged_by_its_namespace(scene: Any) -> None:
    cluster = Cluster(scene, scene.running())
    await cluster.reconciler().reconcile(KEY)
    assert "namespace" in cluster.reads


async def test_a_target_read_before_the_experiment_moved_on_is_read_again(scene: Any) -> None:
    """It was recorded and injected meanwhile: what was read beside it may lack what is there by now."""
    new, running = scene.experiment(), scene.running()
    cluster = Cluster(scene, running)
    assert await cluster.reconciler(new).reconcile(KEY) == running.expires_at
    assert cluster.reads.count("target") == 2
    cluster.reads.clear()
    await cluster.reconciler(scene.experiment(running)).reconcile(KEY)
    assert cluster.reads.count("target") == 1


@pytest.mark.parametrize("away", [False, True])
async def test_a_pass_that_could_not_read_all_leaves_no_echo(scene: Any, away: bool) -> None:
    running = scene.running()
    cluster = Cluster(scene, running)
    cluster.namespace_away = away
    await cluster.reconciler(scene.experiment(running)).reconcile(KEY)
    assert len(cluster.echoes) == (0 if away else 1)


@pytest.mark.parametrize(("pressing", "deleting"), [(False, False), (True, False), (True, True)])
async def test_who_is_restored_is_let_go_after_those_who_are_not(
    scene: Any, pressing: bool, deleting: bool
) -> None:
    """But a delete is waited for, and is not put off."""
    recovering = replace(scene.recorded(), phase=Phase.RECOVERING, reason="Expired")
    if deleting:
        scene.metadata["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    cluster = Cluster(scene, recovering)
    cluster.pressing = pressing
    await cluster.reconciler().reconcile(KEY)
    await asyncio.sleep(0)
    assert (cluster.said, cluster.stored[0].phase) == (["Expired", "Recovered"], Phase.FINISHED)
    put_off = pressing and not deleting
    assert (cluster.late, cluster.released) == (([KEY], 0) if put_off else ([], 1))
