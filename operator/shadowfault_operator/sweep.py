"""A look at every Deployment now and then, for chaos that no experiment stands behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NoReturn

import structlog

from shadowfault_operator.errors import ApiError, ConflictError, NotFoundError, UnavailableError
from shadowfault_operator.injection import restoration
from shadowfault_operator.model import Key
from shadowfault_operator.orphans import Behind, remains, unmanaged

if TYPE_CHECKING:
    from shadowfault_operator.metrics import Metrics
    from shadowfault_operator.ports import Experiments, Targets
    from shadowfault_operator.target import Target

_log = structlog.get_logger(__name__)
_RETRY_SECONDS: Final = 5.0


class Sweeper:
    """Takes out what is left of experiments that are gone, and counts what people switched on by hand."""

    def __init__(
        self, experiments: Experiments, targets: Targets, metrics: Metrics, *, every_seconds: float
    ) -> None:
        self._experiments = experiments
        self._targets = targets
        self._metrics = metrics
        self._every_seconds = every_seconds

    async def run(self) -> NoReturn:
        """Sweep at the start and then every so often, until cancelled."""
        while True:
            pause = self._every_seconds
            try:
                await self.sweep()
            except (ApiError, UnavailableError) as error:
                _log.warning("sweep not done, will be tried again", error=str(error))
                pause = min(pause, _RETRY_SECONDS)
            await asyncio.sleep(pause)

    async def sweep(self) -> None:
        """Look once.

        Raises:
            ApiError, UnavailableError: something could not be listed.
        """
        # In this order: an experiment that comes after its Deployment was read is seen all the same.
        suspects: list[tuple[str, Target]] = []
        by_hand: set[Key] = set()
        async for namespace, target in self._targets.list_all():
            if target.has_our_managers:
                suspects.append((namespace, target))
            if unmanaged(target):
                by_hand.add(Key(namespace, target.name))
        self._metrics.show_unmanaged(by_hand)
        if not suspects:
            return
        experiments = await self._experiments.list_all()
        for namespace, target in suspects:
            await self._clean(namespace, target, Behind.of(experiments, namespace))

    async def _clean(self, namespace: str, target: Target, behind: Behind) -> None:
        found = remains(target, behind)
        body = restoration(target, found) if found is not None else None
        if found is None or body is None:
            return
        name = f"{namespace}/{target.name}"
        try:
            await self._targets.restore(Key(namespace, target.name), body)
        except (ConflictError, NotFoundError):
            return  # it is another one by now: looked at next time
        except ApiError as error:
            self._metrics.orphans.labels("refused").inc()
            _log.error("what is left of an experiment cannot be taken out", target=name, error=str(error))
            return
        self._metrics.orphans.labels("removed").inc()
        _log.warning(
            "took out what was left of an experiment that is gone",
            target=name,
            container=found.container,
            variables=sorted(found.environment),
        )
