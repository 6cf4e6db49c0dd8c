"""RFC 9457 problem documents: every error of the API is one.

A document never quotes the body; a pointer (RFC 6901) says where in it the error is.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy import exc
from starlette.exceptions import HTTPException

from shadowfault_api.http.context import request_id_of
from shadowfault_api.shadow.failures import FailureType, failure_type_of
from shadowfault_api.store.primary import NotFoundError, VersionConflictError

MEDIA_TYPE: Final = "application/problem+json"
RETRY_SECONDS: Final = 1
UNFORESEEN: Final = "The request could not be carried out."
_log: Final = structlog.get_logger("shadowfault.http")

SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "requestId"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "format": "uri-reference"},
        "requestId": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["detail"],
                "properties": {
                    "detail": {"type": "string"},
                    "pointer": {"type": "string", "description": "JSON pointer into the body (RFC 6901)."},
                    "parameter": {
                        "type": "string",
                        "description": "Name of a path, query or header parameter.",
                    },
                },
            },
        },
    },
}


class Problem(Exception):  # noqa: N818 - it is an answer, not a defect
    """Raised by a handler: the answer is this problem."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers
        self.errors = errors


def unavailable(detail: str) -> Problem:
    """Build the 503 that asks to come back."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": str(RETRY_SECONDS)})


def document(problem: Problem, *, request_id: str, instance: str) -> dict[str, Any]:
    """Build the members of a problem document; a type of about:blank means the status says it all."""
    members: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.status.phrase,
        "status": problem.status.value,
        "detail": problem.detail,
        "instance": quote(instance),
        "requestId": request_id,
    }
    if problem.errors:
        members["errors"] = list(problem.errors)
    return members


def respond(request: Request, problem: Problem) -> JSONResponse:
    """Answer with a problem."""
    return JSONResponse(
        document(problem, request_id=request_id_of(request.scope), instance=request.url.path),
        status_code=problem.status,
        headers=dict(problem.headers or {}),
        media_type=MEDIA_TYPE,
    )


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Declare problem answers for OpenAPI."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status.value: {"description": status.phrase, "content": content} for status in statuses}


def install(app: FastAPI) -> None:
    """Make every error of the app a problem document. What nobody foresaw is the middleware's to answer."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(NotFoundError, _not_found)
    app.add_exception_handler(VersionConflictError, _conflict)
    app.add_exception_handler(exc.SQLAlchemyError, _database)


def _problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)  # noqa: S101 - for the type checker: Starlette picks handlers by class
    return respond(request, error)


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    status = HTTPStatus(error.status_code)
    return respond(request, Problem(status, str(error.detail), headers=error.headers))


def _not_found(request: Request, _error: Exception) -> JSONResponse:
    return respond(request, Problem(HTTPStatus.NOT_FOUND, "There is no listing with this id."))


def _conflict(request: Request, _error: Exception) -> JSONResponse:
    detail = "The listing has changed: read it again and send its new ETag in If-Match."
    return respond(request, Problem(HTTPStatus.PRECONDITION_FAILED, detail))


def _validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    items = error.errors()
    if any(item["type"] == "json_invalid" for item in items):
        return respond(request, Problem(HTTPStatus.BAD_REQUEST, "The body is not valid JSON."))
    errors = [_item(item["loc"], item["msg"]) for item in items]
    detail = "The request is well formed, but not what this operation takes: see errors."
    return respond(request, Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors))


def _item(location: Sequence[str | int], message: str) -> dict[str, str]:
    where, *path = location
    if where != "body":
        return {"detail": message, "parameter": ".".join(str(part) for part in path)}
    escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in path)
    return {"detail": message, "pointer": "".join(f"/{part}" for part in escaped)}


def _database(request: Request, error: Exception) -> JSONResponse:
    """Answer for the primary; the shadow's errors never come this far."""
    kind = failure_type_of(error)
    _log.error("primary_failed", failure_type=str(kind), error_class=type(error).__name__)
    if kind in (FailureType.TIMEOUT, FailureType.UNAVAILABLE):
        return respond(request, unavailable("The database does not answer; try again."))
    return respond(request, Problem(HTTPStatus.INTERNAL_SERVER_ERROR, UNFORESEEN))
