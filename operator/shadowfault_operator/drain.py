"""`shadowfault drain`: end every experiment while the operator lives, before it is uninstalled.

It suspends schedules, so that nothing begins, and then experiments, and waits until no finalizer of ours is
left. The finalizer of an experiment goes when its target is restored, so none left means that nothing is left
in any Deployment; the operator sets one only with the resourceVersion it has looked at, so none can come
after the suspension was stored. Nothing is deleted: what an experiment came to is its record. Without a
namespace it is all of them: the last way out knows no list.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import kopf
import typer

from shadowfault_operator.client import ApiClient
from shadowfault_operator.connection import connection
from shadowfault_operator.errors import ApiError, NotFoundError, RefusedError, UnavailableError
from shadowfault_operator.handlers import kopf_settings
from shadowfault_operator.model import FINALIZER, GROUP, PLURAL, SCHEDULES, VERSION, Key, Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_operator.model import Json

EXIT_LEFT: Final = 1
EXIT_NO_CLUSTER: Final = 2
_PAUSE_SECONDS: Final = 0.5
_MERGE: Final = "application/merge-patch+json"
_UNPROCESSABLE: Final = 422
_FINAL: Final = frozenset(phase.value for phase in Phase if phase.final)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class NotDrainedError(Exception):
    """Some are left when the time is up. `left` names them as namespace/name; `why` is the last refusal."""

    def __init__(self, left: list[Key], why: str | None) -> None:
        super().__init__(", ".join(map(str, left)) or why)
        self.left = left
        self.why = why


@app.command()
def drain_command(
    timeout: Annotated[
        float, typer.Option(min=1, max=3600, help="How long to wait for the operator, in seconds.")
    ] = 120.0,
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", "-n", help="Only there; may be given twice.")
    ] = None,
) -> None:
    """End every experiment, in all namespaces unless some are named, and wait until the targets are restored.

    Experiments and schedules are suspended and stay as records; `kubectl delete` removes them.

    Exits 0 when nothing runs any more, 1 when something does, 2 when there is no cluster to ask.
    """
    try:
        asyncio.run(_drain_with_own_client(timeout, namespace or []))
    except kopf.LoginError as error:
        sys.stderr.write(f"drain: {error}\n")
        raise typer.Exit(EXIT_NO_CLUSTER) from None
    except NotDrainedError as error:
        sys.stderr.write(_advice(error, timeout))
        raise typer.Exit(EXIT_LEFT) from None
    typer.echo("drain: no experiment is running")


def _advice(error: NotDrainedError, timeout: float) -> str:
    lines = [f"drain: not all experiments ended within {timeout:g} s"]
    lines += [f"  {key}" for key in error.left]
    lines += [f"the API server last answered: {error.why}"] if error.why else []
    lines.append(
        "Their finalizer waits for the operator: see that it runs (kubectl get deployments -A -l "
        "app.kubernetes.io/component=operator), read its log, and try again."
    )
    return "\n".join(lines) + "\n"


async def _drain_with_own_client(seconds: float, namespaces: list[str]) -> None:
    client = ApiClient(partial(connection, kopf_settings()))
    try:
        await drain(client, namespaces, seconds=seconds, say=typer.echo)
    finally:
        await client.close()


async def drain(
    client: ApiClient, namespaces: list[str], *, seconds: float, say: Callable[[str], None]
) -> None:
    """Suspend our custom resources and wait until nothing of them is in a target, `seconds` at most.

    Args:
        namespaces: where; everywhere when empty.

    Raises:
        NotDrainedError: some are not restored.
    """
    give_up = time.monotonic() + seconds
    asked: set[Key] = set()
    quiet = False
    while True:
        look = await _end_all(client, namespaces)
        for key in look.ended:
            if key not in asked:
                say(f"drain: ending {key}")
        asked.update(look.ended)
        # Twice in a row: what a schedule was about to create as it was suspended is there by the second look.
        if look.over and quiet:
            return
        quiet = look.over and not look.suspended_a_schedule
        if time.monotonic() >= give_up and not look.over:
            raise NotDrainedError(look.left, look.why)
        await asyncio.sleep(_PAUSE_SECONDS)


@dataclass
class _Look:
    """What one pass over all came to. `left`: not restored yet, or not to be changed; `why`: who refused."""

    ended: list[Key] = field(default_factory=list)
    left: list[Key] = field(default_factory=list)
    suspended_a_schedule: bool = False
    why: str | None = None

    @property
    def over(self) -> bool:
        return not self.left and self.why is None


async def _end_all(client: ApiClient, namespaces: list[str]) -> _Look:
    """Suspend whatever there is; schedules first, for they start experiments. One refusal stops no other."""
    look = _Look()
    try:
        schedules = await _list(client, SCHEDULES, namespaces)
        experiments = await _list(client, PLURAL, namespaces)
    except (ApiError, UnavailableError) as error:
        look.why = str(error)
        return look
    for item in schedules:
        look.suspended_a_schedule = look.suspended_a_schedule or not _is_suspended(item)
        try:
            await _suspend(client, SCHEDULES, item)
        except (ApiError, UnavailableError) as error:
            look.why = str(error)
    for item in experiments:
        if _is_over(item):
            continue
        key = _key(item)
        look.ended.append(key)
        try:
            left = await _may_be_in_a_target(client, item)
        except (ApiError, UnavailableError) as error:
            look.why, left = str(error), True
        if left:
            look.left.append(key)
    return look


def _is_over(item: Json) -> bool:
    """Whether an experiment is in no target, and will not be."""
    stopped = item.get("status", {}).get("phase") in _FINAL or _is_suspended(item)
    return stopped and not _has_finalizer(item)


async def _may_be_in_a_target(client: ApiClient, item: Json) -> bool:
    """End an experiment, unless that is under way; tells whether its target may still have to be restored."""
    if "deletionTimestamp" in item["metadata"] or item.get("status", {}).get("phase") in _FINAL:
        return _has_finalizer(item)
    return _has_finalizer(await _suspend(client, PLURAL, item))


async def _suspend(client: ApiClient, plural: str, item: Json) -> Json:
    """Suspend one; gives it as it is then."""
    if _is_suspended(item):
        return item
    key = _key(item)
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{key.namespace}/{plural}/{key.name}"
    try:
        return await client.request("PATCH", path, body={"spec": {"suspend": True}}, content_type=_MERGE)
    except NotFoundError:
        return {}
    except RefusedError as error:
        if error.status != _UNPROCESSABLE:
            raise
    # An object that the schema of today does not take cannot be changed, only deleted.
    try:
        answer = await client.request("DELETE", path)
    except NotFoundError:
        return {}
    # The object where something holds it, else a Status without finalizers.
    return answer


def _key(item: Json) -> Key:
    return Key(item["metadata"]["namespace"], item["metadata"]["name"])


def _is_suspended(item: Json) -> bool:
    return (item.get("spec") or {}).get("suspend") is True


def _has_finalizer(item: Json) -> bool:
    return FINALIZER in (item.get("metadata", {}).get("finalizers") or ())


async def _list(client: ApiClient, plural: str, namespaces: list[str]) -> list[Json]:
    roots = [f"namespaces/{name}/{plural}" for name in namespaces] or [plural]
    found: list[Json] = []
    for root in roots:
        try:
            answer = await client.request("GET", f"/apis/{GROUP}/{VERSION}/{root}")
        except NotFoundError:
            continue  # there is no such resource, or not any more
        found += answer["items"]
    return found
