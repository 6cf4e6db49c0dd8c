"""`shadowfault drain`: end every experiment while the operator lives, before it is uninstalled.

It deletes all custom resources of our group (what starts experiments first, then the experiments) and waits
until none is left. The finalizer of an experiment goes when its target is restored, so none left means that
nothing is left in any Deployment. Without a namespace it is all of them: the last way out knows no list.
"""

from __future__ import annotations

import asyncio
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import kopf
import typer

from shadowfault_operator.client import ApiClient
from shadowfault_operator.connection import connection
from shadowfault_operator.errors import ApiError, NotFoundError, UnavailableError
from shadowfault_operator.handlers import kopf_settings
from shadowfault_operator.model import GROUP, PLURAL, VERSION, Key

if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_LEFT: Final = 1
EXIT_NO_CLUSTER: Final = 2
_PAUSE_SECONDS: Final = 0.5

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
    """Delete every experiment, of all namespaces unless some are named, and wait for their targets.

    Exits 0 when none is left, 1 when some are, 2 when there is no cluster to ask.
    """
    try:
        asyncio.run(_drain_with_own_client(timeout, namespace or []))
    except kopf.LoginError as error:
        sys.stderr.write(f"drain: {error}\n")
        raise typer.Exit(EXIT_NO_CLUSTER) from None
    except NotDrainedError as error:
        sys.stderr.write(_advice(error, timeout))
        raise typer.Exit(EXIT_LEFT) from None
    typer.echo("drain: no experiment is left")


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
    """Delete our custom resources and wait until they are gone, `seconds` at most.

    Args:
        namespaces: where; everywhere when empty.

    Raises:
        NotDrainedError: some are left.
    """
    give_up = time.monotonic() + seconds
    asked: set[Key] = set()
    left: list[Key] = []
    while True:
        why = None
        try:
            left = []
            for plural in await _plurals(client):
                keys = await _list(client, plural, namespaces)
                # Again at each look: whatever comes in meanwhile is ended too.
                for key in keys:
                    await _delete(client, plural, key)
                    if key not in asked:
                        say(f"drain: ending {plural} {key}")
                asked.update(keys)
                left += keys
        except (ApiError, UnavailableError) as error:
            why = str(error)
        if why is None and not left:
            return
        if time.monotonic() >= give_up:
            raise NotDrainedError(left, why)
        await asyncio.sleep(_PAUSE_SECONDS)


async def _plurals(client: ApiClient) -> list[str]:
    """Our resources that the API server serves, experiments last: what starts them goes first."""
    try:
        answer = await client.request("GET", f"/apis/{GROUP}/{VERSION}")
    except NotFoundError:
        return []
    names = [item["name"] for item in answer["resources"] if "/" not in item["name"] and item["namespaced"]]
    return sorted(names, key=lambda name: (name == PLURAL, name))


async def _list(client: ApiClient, plural: str, namespaces: list[str]) -> list[Key]:
    roots = [f"namespaces/{name}/{plural}" for name in namespaces] or [plural]
    found: list[Key] = []
    for root in roots:
        try:
            answer = await client.request("GET", f"/apis/{GROUP}/{VERSION}/{root}")
        except NotFoundError:
            continue
        found += [Key(item["metadata"]["namespace"], item["metadata"]["name"]) for item in answer["items"]]
    return found


async def _delete(client: ApiClient, plural: str, key: Key) -> None:
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{key.namespace}/{plural}/{key.name}"
    try:
        await client.request("DELETE", path)
    except NotFoundError:
        return
