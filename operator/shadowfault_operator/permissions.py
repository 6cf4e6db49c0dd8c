"""What the operator has to be allowed, and whether it is: asked of the API server, told by log and metric.

A missing verb shows where it hurts as well, in the condition of an experiment, but not all of them can: an
operator that may not read experiments cannot write into one that it may not.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

import structlog

from shadowfault_operator.errors import ApiError, UnavailableError
from shadowfault_operator.halt import NAME as HALT
from shadowfault_operator.model import GROUP, PLURAL, SCHEDULES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from shadowfault_operator.client import ApiClient
    from shadowfault_operator.metrics import Metrics

_log = structlog.get_logger(__name__)
_PATH: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_AT_ONCE: Final = 4
# Seconds between two looks at what is missing, and at everything after something was refused.
_AGAIN: Final = 5.0


@dataclass(frozen=True, order=True)
class Permission:
    """One verb on one resource (`deployments`, `chaosexperiments/status`); `namespace` is "" for all."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        where = f" in namespace {self.namespace}" if self.namespace else " in the cluster"
        return f"{self.verb} {self.resource}{'.' if self.group else ''}{self.group}{where}"


# By resource, in the namespaces served: what is watched, and what is written wherever an experiment may be.
SERVED: Final = (
    (GROUP, PLURAL, ("get", "list", "watch", "patch", "delete")),
    (GROUP, f"{PLURAL}/status", ("patch",)),
    (GROUP, SCHEDULES, ("get", "list", "watch")),
    (GROUP, f"{SCHEDULES}/status", ("patch",)),
    ("apps", "deployments", ("get", "list", "watch")),
    ("", "events", ("create",)),
)
# Of the cluster.
CLUSTER: Final = (
    ("apiextensions.k8s.io", "customresourcedefinitions", ("list", "watch")),
    ("", "namespaces", ("get", "list", "watch")),
)
# In each namespace where something may be injected.
INJECTED: Final = (
    ("apps", "deployments", ("patch",)),
    ("", "configmaps", ("get",)),
    ("", "pods", ("list",)),
    (GROUP, PLURAL, ("create",)),
    (GROUP, f"{SCHEDULES}/finalizers", ("update",)),
)
# In the operator's own namespace, and for the one object only.
OWN: Final = (("", "configmaps", ("list", "watch")),)


def needed(served: Iterable[str], injected: Iterable[str], own: str) -> list[Permission]:
    """What has to be allowed.

    Args:
        served: the namespaces served; empty for all.
        injected: the namespaces where something is or may be injected.
        own: the operator's own namespace.
    """
    found = {
        *_each(SERVED, tuple(served) or ("",)),
        *_each(CLUSTER, ("",)),
        *_each(INJECTED, injected),
        *_each(OWN, (own,), HALT),
    }
    return sorted(found)


def _each(
    rules: Iterable[tuple[str, str, tuple[str, ...]]], namespaces: Iterable[str], name: str = ""
) -> Iterator[Permission]:
    for namespace in namespaces:
        for group, resource, verbs in rules:
            for verb in verbs:
                yield Permission(verb, group, resource, namespace, name)


def review(permission: Permission) -> dict[str, object]:
    """The question whether it is allowed, as a SelfSubjectAccessReview."""
    resource, _, subresource = permission.resource.partition("/")
    attributes = {
        "verb": permission.verb,
        "group": permission.group,
        "resource": resource,
        "subresource": subresource,
        "namespace": permission.namespace,
        "name": permission.name,
    }
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {field: value for field, value in attributes.items() if value}},
    }


class Permissions:
    """Asks at the start, every so often, after a refusal, and, as long as something is missing, for that."""

    def __init__(
        self,
        client: ApiClient,
        metrics: Metrics,
        wanted: Callable[[], list[Permission]],
        *,
        every_seconds: float,
    ) -> None:
        self._client = client
        self._metrics = metrics
        self._wanted = wanted
        self._every_seconds = every_seconds
        self._refused = asyncio.Event()
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self.missing: frozenset[Permission] = frozenset()

    def refused(self) -> None:
        """The API server has just refused something: to be called at each 403."""
        self._refused.set()

    async def run(self) -> NoReturn:
        """Ask until cancelled."""
        while True:
            self._refused.clear()
            await self.check(self._wanted())
            everything = time.monotonic() + self._every_seconds
            # A refusal is not asked about more often than what is missing.
            await asyncio.sleep(min(_AGAIN, self._every_seconds))
            while not self._refused.is_set() and time.monotonic() < everything:
                if self.missing:
                    await self.check(self.missing)
                pause = min(_AGAIN, self._every_seconds) if self.missing else everything - time.monotonic()
                # Not wait_for, which takes a cancellation for the event when both come at once (Python 3.11).
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, pause)):
                        await self._refused.wait()

    async def check(self, permissions: Iterable[Permission]) -> None:
        """Ask for these. One that there is no answer for is as it was."""
        asked = tuple(permissions)
        answers = await asyncio.gather(*(self._allowed(permission) for permission in asked))
        found = dict(zip(asked, answers, strict=True))
        lost = {one for one, allowed in found.items() if allowed is False} - self.missing
        back = {one for one, allowed in found.items() if allowed is True} & self.missing
        for one in sorted(lost):
            _log.error(
                "the operator lacks a permission",
                permission=str(one),
                verb=one.verb,
                resource=one.resource,
                namespace=one.namespace,
            )
        for one in sorted(back):
            _log.info("the operator has the permission again", permission=str(one))
        if lost or back:
            self.missing = (self.missing | lost) - back
            self._metrics.show_missing(self.missing)

    async def _allowed(self, permission: Permission) -> bool | None:
        async with self._at_once:
            try:
                answer = await self._client.request("POST", _PATH, body=review(permission))
            except (ApiError, UnavailableError) as error:
                _log.info("permission not asked for", permission=str(permission), error=str(error))
                return None
        status = answer.get("status")
        allowed = status.get("allowed") if isinstance(status, dict) else None
        return allowed if isinstance(allowed, bool) else None
