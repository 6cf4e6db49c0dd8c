"""Gives the account of an experiment, over any number of calls, replicas and restarts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from shadowfault_api.accounts.decision import Step, next_step
from shadowfault_api.jobs import VERIFIER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shadowfault_api.accounts.store import AccountStore
    from shadowfault_api.jobs import Jobs
    from shadowfault_api.store.job_runs import JobRuns

# Who asks waits no longer than that: an operator gives up after five seconds.
_PATIENCE_SECONDS: Final = 3.0


class UnknownExperimentError(Exception):
    """Nothing here was ever under this experiment."""


class Accounting:
    """Answers POST /chaos/account.

    Args:
        jobs: starts runs of the verifier, one at a time.
        runs: those there were; one whose process died has failed.
    """

    def __init__(self, store: AccountStore, jobs: Jobs, runs: JobRuns) -> None:
        self._store = store
        self._jobs = jobs
        self._runs = runs
        self._making: dict[str, asyncio.Task[Mapping[str, Any] | None]] = {}

    async def account(self, experiment_uid: str) -> Mapping[str, Any] | None:
        """The account's document; None while it is in the making.

        Who asks for the same one at once, or again while it is counted, shares one count.

        Raises:
            UnknownExperimentError: there is no trace of the experiment.
        """
        making = self._making.get(experiment_uid)
        if making is None:
            making = asyncio.create_task(self._make(experiment_uid))
            self._making[experiment_uid] = making
            making.add_done_callback(lambda _: self._making.pop(experiment_uid, None))
        done, _ = await asyncio.wait({making}, timeout=_PATIENCE_SECONDS)
        return making.result() if done else None

    async def stop(self, grace_seconds: float) -> None:
        """End what is counted; it is counted again where it is asked for."""
        for making in self._making.values():
            making.cancel()
        if self._making:
            await asyncio.wait(self._making.values(), timeout=grace_seconds)

    async def _make(self, experiment_uid: str) -> Mapping[str, Any] | None:
        known = await self._store.known(experiment_uid)
        if not known.anything:
            raise UnknownExperimentError
        asked = known.asked
        match next_step(known):
            case Step.ANSWER if asked is not None and asked.result is not None:
                return asked.result
            case Step.COUNT if asked is not None:
                account = await self._store.figures(experiment_uid, known, asked.asked_at)
                await self._store.keep(account, asked)
                return account.document()
            case Step.VERIFY:
                await self._verify(experiment_uid)
            case _ if asked and known.run_state == "running" and await self._died(asked.run_id):
                await self._verify(experiment_uid)
        return None

    async def _verify(self, experiment_uid: str) -> None:
        # Before the run begins: what comes under the experiment after this is not in it.
        asked_at = await self._store.now()
        run_id, new = await self._jobs.trigger(VERIFIER)
        # One that began earlier may have passed what this experiment did. It ends, and then ours begins.
        if new:
            await self._store.ask(experiment_uid, asked_at, run_id)

    async def _died(self, run_id: str) -> bool:
        """Whether the run said last that it goes on, and its process is gone."""
        run = await self._runs.get(VERIFIER, run_id)
        return run is not None and run.state == "failed"
