"""What a route needs, made once at start and found through the app's state."""

from dataclasses import dataclass
from threading import Event
from typing import Annotated, cast

from fastapi import Depends, Request

from shadowfault import FaultInjector
from shadowfault_api.accounts.accounting import Accounting
from shadowfault_api.accounts.tally import Tally
from shadowfault_api.deadline import Deadline
from shadowfault_api.entities import Origin
from shadowfault_api.http.context import client_request_id_of, request_id_of
from shadowfault_api.jobs import Jobs
from shadowfault_api.metrics import Metrics
from shadowfault_api.reads import Reads
from shadowfault_api.refresh import Refresh
from shadowfault_api.settings import Settings
from shadowfault_api.shadow.writer import ShadowWriter
from shadowfault_api.store.primary import ListingStore, Primary
from shadowfault_api.tracing import Tracing


@dataclass(frozen=True)
class Resources:
    """Everything one process has."""

    settings: Settings
    injector: FaultInjector | None
    metrics: Metrics
    primary: Primary
    listings: ListingStore
    reads: Reads
    writer: ShadowWriter
    jobs: Jobs
    tally: Tally
    accounting: Accounting
    probe_deadline: Deadline
    refresh: Refresh
    tracing: Tracing
    # Set when the process is to end: for what works in a thread, which nobody can cancel.
    stopping: Event


# Coroutines, though they wait for nothing: a plain function FastAPI would hand to a thread, for each request.


async def resources_of(request: Request) -> Resources:
    """Find the resources of the app that serves this request."""
    return cast("Resources", request.app.state.resources)


async def client_request_id(request: Request) -> str | None:
    """Find the id the client sent, None where there was none."""
    return client_request_id_of(request.scope)


async def origin_of(request: Request) -> Origin:
    """Say where a write comes from."""
    scope = request.scope
    given = client_request_id_of(scope) is not None
    held = await resources_of(request)
    return Origin(request_id_of(scope), given, held.writer.claim_seconds(), held.tracing.traceparent())


Held = Annotated[Resources, Depends(resources_of)]
ClientRequestId = Annotated[str | None, Depends(client_request_id)]
From = Annotated[Origin, Depends(origin_of)]
