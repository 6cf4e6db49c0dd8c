"""Gives the account of an experiment, over any number of calls, replicas and restarts."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from shadowfault_api.accounts.decision import Step, next_step
from shadowfault_api.jobs import VERIFIER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shadowfault_api.accounts.store import AccountStore
    from shadowfault_api.jobs import Jobs
    from shadowfault_api.store.job_runs import JobRuns

# A run that says it goes on while no verifier holds the lock: this old, its process is dead.
_DEAD_AFTER: Final = timedelta(seconds=10)


class UnknownExperimentError(Exception):
    """Nothing here was ever under this experiment."""


class Accounting:
    """Answers POST /chaos/account.

    Args:
        jobs: starts runs of the verifier, one at a time.
        going_on: whether a verifier runs now, anywhere; called in a thread.
    """

    def __init__(self, store: AccountStore, jobs: Jobs, runs: JobRuns, going_on: Callable[[], bool]) -> None:
        self._store = store
        self._jobs = jobs
        self._runs = runs
        self._going_on = going_on

    async def account(self, experiment_uid: str) -> Mapping[str, Any] | None:
        """The account's document; None while it is in the making.

        Raises:
            UnknownExperimentError: there is no trace of the experiment.
        """
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
            case _ if asked is not None and known.run_state == "running":
                await self._bury(asked.run_id)
        return None

    async def _verify(self, experiment_uid: str) -> None:
        # Before the run begins: what comes under the experiment after this is not in it.
        asked_at = await self._store.now()
        run_id, new = await self._jobs.trigger(VERIFIER)
        if new:
            await self._store.ask(experiment_uid, asked_at, run_id)
        else:
            # One that began earlier may have passed what this experiment did. It ends, and then ours begins.
            await self._bury(run_id)

    async def _bury(self, run_id: str) -> None:
        """Enter a run as failed whose process is gone, so that another can begin."""
        run = await self._runs.get(VERIFIER, run_id)
        if run is None or datetime.now(UTC) - run.started_at < _DEAD_AFTER:
            return
        if not await asyncio.to_thread(self._going_on):
            await self._runs.finish(run_id, succeeded=False, result={"error": "Abandoned"})
