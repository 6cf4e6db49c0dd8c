"""The global halt: one ConfigMap in the operator's namespace that ends everything and lets nothing begin.

`shadowfault halt --reason TEXT` writes it, and so does `kubectl create configmap shadowfault-halt` there with
`--from-literal=halt=true --from-literal=reason=TEXT`; deleting it lifts it. An operator that may not read it
has to assume that it stands: it fails closed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

import structlog

from shadowfault.config import parse_switch
from shadowfault_operator.client import APPLY
from shadowfault_operator.errors import ApiError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_operator.client import ApiClient
    from shadowfault_operator.model import Json

NAME: Final = "shadowfault-halt"
SWITCH: Final = "halt"
REASON: Final = "reason"
_LONGEST_REASON: Final = 200
_RETRY_SECONDS: Final = 0.5
_WATCH_SECONDS: Final = 300
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class HaltState:
    """Whether everything is halted: `reason` says why, None that it is not. Not `known`: nobody can tell."""

    known: bool = True
    reason: str | None = None


UNKNOWN: Final = HaltState(known=False)
LIFTED: Final = HaltState()


def state_of(config_map: Json | None) -> HaltState:
    """What the ConfigMap says. One that is there and says nothing that can be read is in force."""
    if config_map is None:
        return LIFTED
    data = config_map.get("data") or {}
    try:
        if SWITCH in data and not parse_switch(str(data[SWITCH])):
            return LIFTED
    except ValueError:
        pass
    return HaltState(reason=str(data.get(REASON) or "no reason given")[:_LONGEST_REASON])


class Halt:
    """The halt as last seen; `changed` is called when it comes and when it goes."""

    def __init__(self, client: ApiClient, namespace: str, changed: Callable[[], None]) -> None:
        self._client = client
        self._root = f"/api/v1/namespaces/{namespace}/configmaps"
        self._changed = changed
        self.state = UNKNOWN

    def set(self, state: HaltState) -> None:
        """Take a state as seen."""
        if state != self.state:
            _log.warning("halt", known=state.known, reason=state.reason)
            self.state = state
            self._changed()

    async def run(self) -> NoReturn:
        """Watch it until cancelled."""
        while True:
            try:
                await self._watch()
            except NotFoundError:
                await asyncio.sleep(_RETRY_SECONDS)  # 410: too old a version, to be listed again
            except ApiError as error:
                # Refused, and not for want of an answer: nobody could tell us of a halt.
                self.set(HaltState(reason=f"the halt cannot be read: {error.message}"[:_LONGEST_REASON]))
                await asyncio.sleep(_RETRY_SECONDS)
            except UnavailableError as error:
                # Nothing can be begun either while the API server is away; what runs has its deadline.
                _log.info("halt not read, will be tried again", error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)

    async def _watch(self) -> None:
        params = {"fieldSelector": f"metadata.name={NAME}"}
        listed = await self._client.request("GET", self._root, params=params)
        self.set(state_of(next(iter(listed.get("items") or ()), None)))
        params |= {
            "watch": "true",
            "resourceVersion": str(listed["metadata"]["resourceVersion"]),
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        async for event in self._client.watch(self._root, params, seconds=_WATCH_SECONDS):
            if event.get("type") == "ERROR":
                return  # too old a version: listed again
            self.set(state_of(None if event["type"] == "DELETED" else event["object"]))


async def put(client: ApiClient, namespace: str, reason: str) -> None:
    """Put the halt in force, or give it another reason.

    Raises:
        ApiError, UnavailableError: it is not in force.
    """
    root = f"/api/v1/namespaces/{namespace}/configmaps"
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "labels": {"app.kubernetes.io/name": "shadowfault"}},
        "data": {SWITCH: "true", REASON: reason},
    }
    await client.request(
        "PATCH",
        f"{root}/{NAME}",
        params={"fieldManager": "shadowfault-halt", "force": "true"},
        body=body,
        content_type=APPLY,
    )


async def lift(client: ApiClient, namespace: str) -> bool:
    """Lift the halt; False when there was none.

    Raises:
        ApiError, UnavailableError: it may still stand.
    """
    try:
        await client.request("DELETE", f"/api/v1/namespaces/{namespace}/configmaps/{NAME}")
    except NotFoundError:
        return False
    return True
