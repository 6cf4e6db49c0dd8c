"""What is looked at while something runs, and when an experiment is looked at because of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from shadowfault_operator import stopwatch
from shadowfault_operator.errors import RefusedError
from shadowfault_operator.known import Known
from shadowfault_operator.metrics import Metrics
from shadowfault_operator.ports import Pod
from shadowfault_operator.reasons import Reason
from shadowfault_operator.scrape import UnreadableError
from shadowfault_operator.stopconditions import Figures, Reading
from shadowfault_operator.stopwatch import StopWatch

if TYPE_CHECKING:
    from shadowfault_operator.model import Experiment, Key
    from shadowfault_operator.nets import Namespace
    from shadowfault_operator.target import Target

FINE = Reading(10, 0, 0, 0)
MINE = frozenset({"experiment-uid"})


class Ground:
    """Pods as a table, and a clock that stands still."""

    def __init__(self) -> None:
        self.pods_: list[Pod] = [self.pod("a"), self.pod("b")]
        self.readings: dict[str, Reading | str] = {"a": FINE, "b": FINE}
        self.lists = 0
        self.changed: list[Key] = []
        self.fail: Exception | None = None
        self.now = 1000.0
        self.metrics = Metrics(Known())
        self.watch = StopWatch(self, self, self.metrics, self.changed.append, every_seconds=5)

    @staticmethod
    def pod(name: str, *, ready: bool = True, experiments: frozenset[str] = MINE) -> Pod:
        return Pod(name, "127.0.0.1", f"uid-{name}", ready, experiments)

    async def namespace(self, name: str) -> Namespace | None:
        raise NotImplementedError

    async def config_maps(self, namespace: str, names: object) -> Any:
        raise NotImplementedError

    async def pods(self, namespace: str, target: Target) -> list[Pod]:
        assert (namespace, target.name) == ("staging", "api")
        self.lists += 1
        if self.fail:
            raise self.fail
        return self.pods_

    async def read(self, pod: Pod, port: int) -> Reading:
        assert port == 4000
        found = self.readings[pod.name]
        if isinstance(found, str):
            raise UnreadableError(found)
        return found

    async def looks(self, count: int) -> None:
        for _ in range(count):
            self.now += 5
            await self.watch.look()


@pytest.fixture
def ground(monkeypatch: pytest.MonkeyPatch) -> Ground:
    made = Ground()
    monkeypatch.setattr(stopwatch.time, "monotonic", lambda: made.now)
    return made


@pytest.fixture
def run(scene: Any, ground: Ground) -> Experiment:
    status = scene.running()
    experiment: Experiment = scene.experiment(status)
    ground.watch.follow(experiment, scene.target())
    ground.watch.target_changed(experiment.key, 2)
    return experiment


def figures(ground: Ground, run: Experiment) -> Figures:
    seen = ground.watch.observation(run)
    assert seen is not None
    return seen.figures


async def test_at_rest_nothing_is_written_and_hardly_anything_asked(ground: Ground, run: Experiment) -> None:
    await ground.looks(1)
    assert ground.changed == [run.key]  # that metrics can be read
    await ground.looks(359)
    assert ground.changed == [run.key]
    assert figures(ground, run) == Figures(20)
    # 30 minutes: 0, 5, 15, 35, 75, 155, 315, then every 300 s.
    assert ground.lists <= 12


async def test_the_experiment_is_looked_at_when_a_condition_is_met(ground: Ground, run: Experiment) -> None:
    await ground.looks(2)
    ground.changed.clear()
    ground.readings["b"] = Reading(10, 9, 0, 0)
    await ground.looks(1)
    assert ground.changed == [run.key]
    assert figures(ground, run) == Figures(20, 9)


async def test_only_ready_pods_that_carry_it_are_asked(ground: Ground, run: Experiment) -> None:
    ground.pods_ = [
        ground.pod("a"),
        ground.pod("old", experiments=frozenset()),
        ground.pod("other", experiments=frozenset({"other"})),
        ground.pod("starting", ready=False),
    ]
    await ground.looks(1)
    assert figures(ground, run) == Figures(10)


async def test_new_pods_are_found_when_the_target_tells_of_them(
    ground: Ground, run: Experiment, scene: Any
) -> None:
    await ground.looks(20)
    asked = ground.lists
    ground.readings["c"] = FINE
    ground.pods_ = [*ground.pods_, ground.pod("c")]
    ground.watch.target_changed(run.key, 3)
    await ground.looks(1)
    assert ground.lists == asked + 1
    assert figures(ground, run) == Figures(30)
    await ground.looks(20)
    before = ground.lists
    scene.deployment = {}
    target = scene.target(generation=9)
    target.raw["status"] = {"readyReplicas": 3}
    ground.watch.follow(run, target)
    await ground.looks(1)
    assert ground.lists == before + 1


async def test_where_no_pod_is_ready_none_is_listed_until_the_target_tells(
    ground: Ground, scene: Any
) -> None:
    run: Experiment = scene.experiment(scene.running())
    ground.watch.follow(run, scene.target())
    await ground.looks(50)
    assert ground.lists == 0
    ground.watch.target_changed(run.key, 1)
    await ground.looks(1)
    assert ground.lists == 1
    assert figures(ground, run) == Figures(20)
    ground.watch.target_changed(run.key, 0)
    await ground.looks(50)
    assert ground.lists == 1
    # What the target tells may be missed: now and then it is listed all the same.
    await ground.looks(20)
    assert ground.lists == 2


async def test_a_pod_that_is_gone_is_not_asked_again_and_keeps_its_part(
    ground: Ground, run: Experiment
) -> None:
    await ground.looks(20)
    ground.readings["b"] = "unreachable"
    ground.pods_ = [ground.pod("a")]
    await ground.looks(5)
    seen = ground.watch.observation(run)
    assert seen is not None
    assert seen.figures == Figures(20)
    assert seen.availability is not None
    assert seen.availability.available


async def test_pods_that_stay_silent_are_a_condition(ground: Ground, run: Experiment) -> None:
    ground.readings["b"] = "malformed"
    await ground.looks(2)
    assert ground.changed == [run.key]  # the baseline, from the pod that answers
    ground.changed.clear()
    await ground.looks(1)
    assert ground.changed == [run.key]
    seen = ground.watch.observation(run)
    assert seen is not None
    assert seen.availability is not None
    assert seen.availability.reason is Reason.METRICS_UNAVAILABLE
    assert ground.metrics.registry.get_sample_value("shadowfault_scrapes_total", {"result": "malformed"}) == 3
    ground.changed.clear()
    await ground.looks(10)
    assert ground.changed == []


@pytest.mark.parametrize(
    "fail", [RefusedError(403, "Forbidden", "may not list pods", "GET /pods"), RuntimeError("unforeseen")]
)
async def test_pods_that_cannot_be_listed_stop_nothing(
    ground: Ground, run: Experiment, fail: Exception
) -> None:
    ground.fail = fail
    await ground.looks(60)
    seen = ground.watch.observation(run)
    assert seen is not None
    if isinstance(fail, RefusedError):
        assert seen.availability is not None
        assert seen.availability.reason is Reason.METRICS_UNAVAILABLE
    ground.fail = None
    await ground.looks(120)
    assert figures(ground, run) == Figures(20)


async def test_an_experiment_of_the_same_name_begins_at_nothing(
    ground: Ground, run: Experiment, scene: Any
) -> None:
    await ground.looks(1)
    another = replace(run, uid="another")
    assert ground.watch.observation(another) is None
    ground.watch.follow(another, scene.target())
    ground.watch.target_changed(run.key, 2)
    await ground.looks(1)
    assert figures(ground, another) == Figures()
    ground.watch.leave(run.key)
    assert len(ground.watch) == 0


async def test_who_disables_all_is_not_looked_at(ground: Ground, scene: Any) -> None:
    scene.spec = {"stopConditions": {"disabled": ["primaryErrorRatio", "unexplainedDiscrepancies"]}}
    ground.watch.follow(scene.experiment(scene.running()), scene.target())
    assert len(ground.watch) == 0
