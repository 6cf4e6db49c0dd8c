"""What the API server answers when it does not do as asked."""

from __future__ import annotations


class ApiError(Exception):
    """An answer other than 2xx, as a Kubernetes Status."""

    def __init__(self, status: int, reason: str, message: str, request: str) -> None:
        super().__init__(f"{request}: {status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.request = request


class NotFoundError(ApiError):
    """404, or 410 for one object: it is not there."""


class ConflictError(ApiError):
    """409 Conflict: the object has changed since it was read. Nothing was written."""


class AlreadyExistsError(ApiError):
    """409 AlreadyExists: there is an object of that name."""


class RefusedError(ApiError):
    """403 or 422: it will be refused again unless something else changes first."""


class UnavailableError(Exception):
    """No answer, or none that means anything (network, timeout, 429, 5xx): what was asked may be done.

    `retry_after`: seconds for which the API server asks to be left alone.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def from_answer(
    status: int, reason: str, message: str, request: str, retry_after: float | None = None
) -> Exception:
    """The error for an answer."""
    if status == 409:
        kind: type[ApiError] = AlreadyExistsError if reason == "AlreadyExists" else ConflictError
    else:
        kind = {403: RefusedError, 404: NotFoundError, 410: NotFoundError, 422: RefusedError}.get(
            status, ApiError
        )
    if status == 429 or status >= 500:
        return UnavailableError(f"{request}: {status} {reason}: {message}", retry_after)
    return kind(status, reason, message, request)
