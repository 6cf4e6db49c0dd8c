"""/api/listings: the critical writes, the reads, and the one write that is not critical."""

from http import HTTPStatus
from typing import Annotated, Final
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Header, Query, Request, Response, params
from pydantic import StringConstraints
from pydantic.json_schema import SkipJsonSchema

from shadowfault import Surface
from shadowfault_api.entities import LISTING, Operation
from shadowfault_api.http.context import CRITICAL_WRITE
from shadowfault_api.http.models import (
    Accepted,
    ListingDocument,
    ListingPage,
    ListingPatch,
    NewListing,
    Views,
)
from shadowfault_api.http.problems import Problem, documented, unavailable
from shadowfault_api.http.resources import ClientRequestId, From, Held
from shadowfault_api.reads import ReadUnavailableError
from shadowfault_api.shadow.failures import FailureType, failure_type_of
from shadowfault_api.store.primary import NotFoundError

_log: Final = structlog.get_logger("shadowfault.listings")
_VIEW: Final = "view"
_LARGEST_PAGE: Final = 200

router = APIRouter(
    prefix="/api/listings",
    tags=["listings"],
    responses=documented(
        HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE
    ),
)
_GONE: Final = documented(HTTPStatus.NOT_FOUND)
_GONE_OR_CHANGED: Final = documented(HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED)

_ETag = Annotated[str, StringConstraints(pattern=r'^(\*|"[0-9]{1,9}")$')]
IfMatch = Annotated[_ETag | SkipJsonSchema[None], Header(description='The ETag that was read, such as "3".')]


def _critical(operation: Operation) -> list[params.Depends]:
    """Mark a route as a write that no fault may ever be seen in: its outcomes are counted."""

    async def mark(request: Request) -> None:
        request.scope[CRITICAL_WRITE] = (LISTING, operation.value)

    return [Depends(mark)]


@router.post("", status_code=HTTPStatus.CREATED, dependencies=_critical(Operation.CREATE))
async def create(body: NewListing, held: Held, origin: From, response: Response) -> ListingDocument:
    """Create a listing. The shadow write follows later and changes nothing here."""
    with held.tracing.primary_write(Operation.CREATE):
        listing, entry = await held.listings.create(body.title, body.price, origin)
    held.writer.submit(entry, claimed=origin.claimed)
    response.headers["Location"] = f"{router.prefix}/{listing.id}"
    response.headers["ETag"] = _etag(listing.version)
    return ListingDocument.of(listing)


@router.get("")
async def page(
    held: Held,
    key: ClientRequestId,
    after: Annotated[UUID | SkipJsonSchema[None], Query(description="The `next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=_LARGEST_PAGE)] = 50,
) -> ListingPage:
    """List listings, oldest first."""
    try:
        found = await held.reads.page(None if after is None else str(after), limit + 1, key)
    except ReadUnavailableError as error:
        raise _no_answer() from error
    items = [ListingDocument.of(listing) for listing in found[:limit]]
    return ListingPage(items=items, next=items[-1].id if len(found) > limit else None)


@router.get("/{listing_id}", responses=_GONE)
async def get(listing_id: UUID, held: Held, key: ClientRequestId, response: Response) -> ListingDocument:
    """Read a listing."""
    try:
        listing = await held.reads.get(str(listing_id), key)
    except ReadUnavailableError as error:
        raise _no_answer() from error
    response.headers["ETag"] = _etag(listing.version)
    return ListingDocument.of(listing)


@router.patch("/{listing_id}", responses=_GONE_OR_CHANGED, dependencies=_critical(Operation.UPDATE))
async def patch(  # noqa: PLR0913, PLR0917 - the parameters are those of the HTTP request
    listing_id: UUID,
    body: ListingPatch,
    held: Held,
    origin: From,
    response: Response,
    if_match: IfMatch = None,
) -> ListingDocument:
    """Change a listing."""
    with held.tracing.primary_write(Operation.UPDATE):
        listing, entry = await held.listings.update(
            str(listing_id), body.change(), origin, expected_version=_version(if_match)
        )
    held.writer.submit(entry, claimed=origin.claimed)
    response.headers["ETag"] = _etag(listing.version)
    return ListingDocument.of(listing)


@router.delete(
    "/{listing_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=_GONE_OR_CHANGED,
    dependencies=_critical(Operation.DELETE),
)
async def delete(listing_id: UUID, held: Held, origin: From, if_match: IfMatch = None) -> None:
    """Delete a listing."""
    with held.tracing.primary_write(Operation.DELETE):
        entry = await held.listings.delete(str(listing_id), origin, expected_version=_version(if_match))
    held.writer.submit(entry, claimed=origin.claimed)


@router.post("/{listing_id}/views", status_code=HTTPStatus.ACCEPTED, responses=_GONE)
async def view(listing_id: UUID, held: Held, key: ClientRequestId) -> Accepted:
    """Count a view, if that can be done: a failure is counted, and no user's business."""
    fault = None
    if held.injector is not None:
        fault = held.injector.check(Surface.NON_CRITICAL_WRITE, LISTING, _VIEW, request_id=key)
    if fault is not None:
        held.metrics.faults.labels(LISTING, _VIEW).inc()
        _view_lost(held, FailureType.INJECTED)
        if not await _exists(held, str(listing_id)):
            raise NotFoundError
        return Accepted()
    try:
        await held.listings.add_view(str(listing_id))
    except NotFoundError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, a view is not worth an error
        _view_lost(held, failure_type_of(error))
    return Accepted()


@router.get("/{listing_id}/views", responses=_GONE)
async def views(listing_id: UUID, held: Held) -> Views:
    """Read how often a listing was viewed."""
    return Views(views=await held.listings.views(str(listing_id)))


async def _exists(held: Held, listing_id: str) -> bool:
    try:
        return await held.listings.exists(listing_id)
    except Exception:  # noqa: BLE001 - the primary is away: the view is lost either way
        return True


def _view_lost(held: Held, kind: FailureType) -> None:
    held.metrics.non_critical_failures.labels(LISTING, _VIEW, kind.value).inc()
    _log.warning("non_critical_write_failed", entity_type=LISTING, operation=_VIEW, failure_type=kind.value)


def _no_answer() -> Problem:
    return unavailable("The listing cannot be read just now; try again.")


def _etag(version: int) -> str:
    return f'"{version}"'


def _version(if_match: str | None) -> int | None:
    return None if if_match in (None, "*") else int(if_match.strip('"'))
