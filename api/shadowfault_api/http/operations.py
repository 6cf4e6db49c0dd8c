"""What operators and machines ask: /health, /ready, /metrics, /chaos/disarm, /chaos/account."""

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from shadowfault import control
from shadowfault_api.accounts.accounting import UnknownExperimentError
from shadowfault_api.http import exposition
from shadowfault_api.http.models import AccountDocument, AccountRequest, Disarm, Disarmed, Verifying
from shadowfault_api.http.problems import RETRY_SECONDS, Problem, documented, unavailable
from shadowfault_api.http.resources import Held

router = APIRouter(tags=["operations"], responses=documented(HTTPStatus.BAD_REQUEST))


@router.get("/health")
async def health(held: Held) -> dict[str, Any]:
    """Tell that the process lives, what chaos it is under, and how its shadow writes are doing."""
    return {
        "status": "ok",
        "chaos": control.health(held.injector),
        "shadow": {"breaker": held.writer.breaker.state.value, "queued": held.writer.queue_depth},
    }


@router.get("/ready", responses=documented(HTTPStatus.SERVICE_UNAVAILABLE))
async def ready(request: Request, held: Held) -> dict[str, str]:
    """Tell whether requests can be served: whether the primary answers. The shadow plays no part."""
    if request.app.state.draining:
        raise unavailable("The service is stopping.")
    try:
        await held.probe_deadline.run(held.primary.ping())
    except Exception as error:
        raise unavailable("The primary database does not answer.") from error
    return {"status": "ready"}


@router.get("/metrics", response_class=Response)
async def metrics(request: Request, held: Held) -> Response:
    """Expose the metrics, as Prometheus text or, where asked for, as OpenMetrics."""
    await held.refresh.refresh()
    body, content_type = exposition.negotiate(request.headers.get("accept", ""), held.metrics.registry)
    return Response(body, headers={"Content-Type": content_type})


@router.post(
    "/chaos/disarm",
    responses=documented(HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY),
    tags=["chaos"],
)
async def disarm(body: Disarm, held: Held) -> Disarmed:
    """Stop injecting, for good. It can only make the service safer: the experiment's UID is all it takes."""
    outcome = control.disarm(held.injector, body.experiment_uid)
    if outcome is control.Disarming.REFUSED:
        raise Problem(HTTPStatus.CONFLICT, "The faults of this process belong to another experiment.")
    held.tally.hurry()
    return Disarmed(disarmed=outcome is control.Disarming.STOPPED)


@router.post(
    "/chaos/account",
    responses={
        **documented(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE),
        HTTPStatus.ACCEPTED.value: {"model": Verifying, "description": "In the making; ask again."},
    },
    response_model=AccountDocument,
    tags=["chaos"],
)
async def account(body: AccountRequest, held: Held) -> Response:
    """Tell what an experiment came to, after one pass of the verifier begun after its end.

    It tells numbers and changes nothing that anyone relies on: the experiment's UID is all it takes.
    """
    try:
        given = await held.accounting.account(body.experiment_uid)
    except UnknownExperimentError as error:
        raise Problem(HTTPStatus.NOT_FOUND, "Nothing here was under an experiment with this UID.") from error
    if given is None:
        headers = {"Retry-After": str(RETRY_SECONDS)}
        return JSONResponse(Verifying().model_dump(), HTTPStatus.ACCEPTED, headers=headers)
    return JSONResponse(dict(given))
