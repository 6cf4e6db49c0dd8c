"""Reads of listings: from the primary, and where that fails, injected or real, from the shadow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog
from sqlalchemy import exc

from shadowfault import InjectedFault, Surface
from shadowfault_api.entities import LISTING
from shadowfault_api.shadow.failures import FailureType, failure_type_of
from shadowfault_api.store.primary import NotFoundError
from shadowfault_api.store.shadow import DeletedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from shadowfault import FaultInjector
    from shadowfault_api.entities import Listing
    from shadowfault_api.shadow.path import ShadowPath
    from shadowfault_api.store.primary import ListingStore

_log: Final = structlog.get_logger("shadowfault.reads")
_T = TypeVar("_T")


class ReadUnavailableError(Exception):
    """Neither store can answer this read now."""


class Reads:
    """What GET asks. The key of a decision is the client's request id, where it sent one."""

    def __init__(self, listings: ListingStore, path: ShadowPath, injector: FaultInjector | None) -> None:
        self._listings = listings
        self._path = path
        self._injector = injector

    async def get(self, listing_id: str, key: str | None) -> Listing:
        """Read one listing.

        Raises:
            NotFoundError: there is none.
            ReadUnavailableError: the primary failed and the shadow cannot tell.
        """
        found = await self._read(
            "read",
            key,
            lambda: self._listings.get(listing_id),
            lambda: self._from_shadow(listing_id),
        )
        if found is None:
            raise NotFoundError
        return found

    async def page(self, after: str | None, limit: int, key: str | None) -> Sequence[Listing]:
        """Read a page; see `ListingStore.page`.

        Raises:
            ReadUnavailableError: the primary failed and so did the shadow.
        """
        return await self._read(
            "list",
            key,
            lambda: self._listings.page(after, limit),
            lambda: self._path.shadow.page(after, limit),
        )

    async def _read(
        self,
        operation: str,
        key: str | None,
        primary: Callable[[], Awaitable[_T]],
        shadow: Callable[[], Coroutine[Any, Any, _T]],
    ) -> _T:
        try:
            self._raise_if_faulted(operation, key)
            return await primary()
        except (InjectedFault, exc.SQLAlchemyError, OSError) as error:
            reason = FailureType.INJECTED if isinstance(error, InjectedFault) else failure_type_of(error)
            if reason not in (FailureType.INJECTED, FailureType.TIMEOUT, FailureType.UNAVAILABLE):
                raise
        _log.warning("primary_read_failed", operation=operation, failure_type=str(reason))
        return await self._instead(operation, shadow)

    async def _instead(self, operation: str, shadow: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        count = self._path.metrics.shadow_reads.labels
        try:
            answer = await self._path.deadline.run(self._if_reachable(shadow))
        except NotFoundError:
            count(LISTING, operation, "served").inc()
            raise
        except Exception as error:
            count(LISTING, operation, "unavailable").inc()
            raise ReadUnavailableError from error
        count(LISTING, operation, "served").inc()
        return answer

    async def _if_reachable(self, shadow: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        if not self._path.breaker.closed:
            raise ReadUnavailableError
        return await shadow()

    async def _from_shadow(self, listing_id: str) -> Listing:
        try:
            found = await self._path.shadow.get(listing_id)
        except DeletedError:
            raise NotFoundError from None
        if found is None:
            # Not there yet, or not there at all: the shadow cannot tell.
            raise ReadUnavailableError
        return found

    def _raise_if_faulted(self, operation: str, key: str | None) -> None:
        if self._injector is None:
            return
        fault = self._injector.check(Surface.READ, LISTING, operation, request_id=key)
        if fault is not None:
            self._path.metrics.faults.labels(LISTING, operation).inc()
            raise InjectedFault(fault)
