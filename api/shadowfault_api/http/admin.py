"""/api/admin: for loopback, or, once ADMIN_TOKEN is set, for its bearer and nobody else."""

import hmac
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Final

from fastapi import APIRouter, Depends, Request, Response
from starlette.datastructures import Headers

from shadowfault_api.http.problems import Problem, documented
from shadowfault_api.http.resources import Held
from shadowfault_api.jobs import UnknownJobError

_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-real-ip")


def admits(peer: str | None, headers: Headers, token: str | None) -> bool:
    """Decide about one caller; `peer` is the address the connection comes from.

    Without a token a request that was forwarded is not local, wherever the proxy runs.
    """
    if token is None:
        return _is_loopback(peer) and not any(name in headers for name in _FORWARDED)
    scheme, _, sent = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(sent.strip().encode("latin-1"), token.encode())


def _is_loopback(peer: str | None) -> bool:
    try:
        address = ip_address(peer or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


async def require_admin(request: Request, held: Held) -> None:
    """Let through who may use the admin paths.

    Raises:
        Problem: the caller may not.
    """
    secret = held.settings.admin_token
    token = None if secret is None else secret.get_secret_value()
    peer = request.client.host if request.client else None
    if admits(peer, request.headers, token):
        return
    if token is None:
        raise Problem(HTTPStatus.FORBIDDEN, "Admin paths answer to loopback only, unless ADMIN_TOKEN is set.")
    raise Problem(
        HTTPStatus.UNAUTHORIZED,
        "Send the admin token: Authorization: Bearer ...",
        headers={"WWW-Authenticate": 'Bearer realm="admin"'},
    )


def admin_router(name: str, *also: HTTPStatus) -> APIRouter:
    """A router for /api/admin/`name` that asks first who calls; `also` are answers beside the usual ones."""
    return APIRouter(
        prefix=f"/api/admin/{name}",
        tags=["admin"],
        dependencies=[Depends(require_admin)],
        responses=documented(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.NOT_FOUND,
            *also,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ),
    )


router = admin_router("jobs")


@router.get("")
async def jobs(held: Held) -> list[dict[str, Any]]:
    """List the jobs with their last runs."""
    return [await held.jobs.describe()]


@router.post("/{name}/trigger", status_code=HTTPStatus.ACCEPTED)
async def trigger(name: str, held: Held, response: Response) -> dict[str, Any]:
    """Run a job now. While it runs, asking again gives the same run."""
    try:
        run_id, new = await held.jobs.trigger(name)
    except UnknownJobError as error:
        raise _unknown() from error
    response.headers["Location"] = f"{router.prefix}/{name}/runs/{run_id}"
    return {"runId": run_id, "alreadyRunning": not new}


@router.get("/{name}/runs/{run_id}")
async def run(name: str, run_id: str, held: Held) -> dict[str, Any]:
    """Follow one run."""
    try:
        return await held.jobs.run(name, run_id)
    except UnknownJobError as error:
        raise _unknown() from error


def _unknown() -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, "There is no such job or run; see GET /api/admin/jobs.")
