"""Looks at the metrics of what runs, every few seconds, and has an experiment looked at when they say so.

It writes nothing and decides nothing: a pass over the experiment reads the observation, as it reads the halt.
What it has counted is in memory; after a restart of the operator it counts on from what living pods say.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn

import structlog

from shadowfault_operator.errors import ApiError, UnavailableError
from shadowfault_operator.model import Spec
from shadowfault_operator.scrape import UnreadableError
from shadowfault_operator.stopconditions import Observation, Steady, Tally, availability, judge

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_operator.metrics import Metrics
    from shadowfault_operator.model import Experiment, Key, StopConditions
    from shadowfault_operator.ports import Pod, Surroundings
    from shadowfault_operator.scrape import Scraper
    from shadowfault_operator.stopconditions import Reading
    from shadowfault_operator.target import Target

_log = structlog.get_logger(__name__)
# Seconds between two lists of a target's pods: soon after something changed, then ever rarer.
_FIRST_LISTING: Final = 5.0
_LONGEST_LISTING: Final = 300.0
_LISTINGS_AT_ONCE: Final = 4
_SCRAPES_AT_ONCE: Final = 32


@dataclass
class _Run:
    """One experiment that runs."""

    uid: str
    target: Target
    container: str
    limits: StopConditions
    tally: Tally
    pods: list[Pod] = field(default_factory=list)
    ready: int | None = None
    listing_pause: float = _FIRST_LISTING
    next_listing: float = 0.0
    steady: Steady = field(default_factory=Steady)
    observation: Observation = field(default_factory=Observation)

    def list_soon(self) -> None:
        """Have its pods listed at the next look."""
        self.listing_pause = _FIRST_LISTING
        self.next_listing = 0.0

    def list_late(self) -> None:
        """There are none to be asked. The target tells when there are, and what it tells may be missed."""
        self.pods = []
        self.listing_pause = _LONGEST_LISTING
        self.next_listing = time.monotonic() + _LONGEST_LISTING


class StopWatch:
    """Follows what runs; `changed` is called with what has to be looked at."""

    def __init__(
        self,
        surroundings: Surroundings,
        scraper: Scraper,
        metrics: Metrics,
        changed: Callable[[Key], None],
        *,
        every_seconds: float,
    ) -> None:
        self._surroundings = surroundings
        self._scraper = scraper
        self._metrics = metrics
        self._changed = changed
        self._every_seconds = every_seconds
        self._runs: dict[Key, _Run] = {}
        self._listings = asyncio.Semaphore(_LISTINGS_AT_ONCE)
        self._scrapes = asyncio.Semaphore(_SCRAPES_AT_ONCE)

    def __len__(self) -> int:
        return len(self._runs)

    def follow(self, experiment: Experiment, target: Target) -> None:
        """Look at the metrics of this run from now on. To be called whenever its target has changed."""
        spec, injection = experiment.spec, experiment.status.injection
        if not isinstance(spec, Spec) or injection is None or not spec.stop_conditions.any():
            self.leave(experiment.key)
            return
        run = self._runs.get(experiment.key)
        if run is None or run.uid != experiment.uid:
            tally = Tally(baseline=experiment.status.unexplained_baseline)
            run = _Run(experiment.uid, target, injection.container, spec.stop_conditions, tally)
            self._runs[experiment.key] = run
        elif run.target.generation != target.generation:
            run.list_soon()
        run.target = target
        self.target_changed(experiment.key, target.ready_replicas)

    def leave(self, key: Key) -> None:
        """It does not run any more."""
        self._runs.pop(key, None)

    def target_changed(self, key: Key, ready: int) -> None:
        """That many pods of the experiment's target are ready by now."""
        run = self._runs.get(key)
        if run is None or run.ready == ready:
            return
        run.ready = ready
        if ready:
            run.list_soon()
        else:
            run.list_late()

    def observation(self, experiment: Experiment) -> Observation | None:
        """What is known of a run; None where it is not followed."""
        run = self._runs.get(experiment.key)
        return run.observation if run is not None and run.uid == experiment.uid else None

    async def run(self) -> NoReturn:
        """Look every so often, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._every_seconds)

    async def look(self) -> None:
        """Look once at everything that runs."""
        await asyncio.gather(*(self._look_at(key, run) for key, run in tuple(self._runs.items())))

    async def _look_at(self, key: Key, run: _Run) -> None:
        try:
            readings, failures = await self._read(key.namespace, run)
        except Exception as error:  # noqa: BLE001 - one target that trips us up must not stop the others
            _log.exception("metrics not read", experiment=str(key), error=str(error))
            return
        if self._runs.get(key) is not run:
            return  # it has ended meanwhile
        before = run.observation
        run.tally = run.tally.add(readings)
        run.steady = run.steady.next(availability(run.limits, readings, failures))
        baseline = run.tally.baseline
        run.observation = Observation(
            run.tally.figures(), run.steady.held, None if baseline is None else round(baseline)
        )
        news = run.observation.availability is not before.availability or (
            before.baseline is None and run.observation.baseline is not None
        )
        if news or judge(run.limits, run.observation.figures) is not None:
            self._changed(key)

    async def _read(self, namespace: str, run: _Run) -> tuple[dict[str, Reading], dict[str, str]]:
        """Readings by UID of the pod, and why there is none by its name."""
        try:
            await self._list(namespace, run)
        except (ApiError, UnavailableError) as error:
            self._metrics.scrapes.labels("unlisted").inc()
            _log.info("pods not listed", target=f"{namespace}/{run.target.name}", error=str(error))
            run.pods = []
            return {}, {"": "unlisted"}
        known = run.target.container(run.container)
        if known is None:
            return {}, {}
        pods = tuple(run.pods)
        answers = await asyncio.gather(*(self._ask(pod, known.http_port) for pod in pods))
        readings: dict[str, Reading] = {}
        failures: dict[str, str] = {}
        for pod, answer in zip(pods, answers, strict=True):
            if isinstance(answer, str):
                failures[pod.name] = answer
            else:
                readings[pod.uid] = answer
        if failures:
            # One that is gone, or not ready any more, is no failure: the next list tells.
            run.list_soon()
        return readings, failures

    async def _list(self, namespace: str, run: _Run) -> None:
        if time.monotonic() < run.next_listing:
            return
        pause = run.listing_pause
        # Set before: what comes to pass during the list has it listed again.
        run.next_listing = time.monotonic() + pause
        run.listing_pause = min(_LONGEST_LISTING, pause * 2)
        async with self._listings:
            pods = await self._surroundings.pods(namespace, run.target)
        run.pods = [pod for pod in pods if pod.ready and run.uid in pod.experiments]

    async def _ask(self, pod: Pod, port: int) -> Reading | str:
        async with self._scrapes:
            try:
                reading = await self._scraper.read(pod, port)
            except UnreadableError as error:
                self._metrics.scrapes.labels(str(error)).inc()
                return str(error)
        self._metrics.scrapes.labels("read").inc()
        return reading
