"""The least that a kopf operator can do: on create one apply patch and a phase, on delete an empty apply.

`python -m shadowfault_bench.bare_handler NAMESPACE` serves Bares of bench.shadowfault.dev there. No net, no
record, no owner is looked at: it is what bench_operator measures the operator against.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Any, Final

import kopf

from shadowfault_operator.client import APPLY, ApiClient
from shadowfault_operator.connection import connection

GROUP: Final = "bench.shadowfault.dev"
VERSION: Final = "v1"
PLURAL: Final = "bares"
_MANAGER: Final = "bare"


def body(name: str, entries: list[dict[str, str]]) -> dict[str, Any]:
    """An apply patch of a Deployment with these entries, with none where there are none."""
    container = {"name": "api", "env": entries}
    spec = {"template": {"spec": {"containers": [container]}}} if entries else {}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        **({"spec": spec} if spec else {}),
    }


def registry(client: ApiClient) -> kopf.OperatorRegistry:
    """The two handlers."""
    handlers = kopf.OperatorRegistry()

    async def apply(namespace: str, name: str, entries: list[dict[str, str]]) -> None:
        await client.request(
            "PATCH",
            f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}",
            params={"fieldManager": _MANAGER, "force": "true"},
            body=body(name, entries),
            content_type=APPLY,
        )

    async def created(spec: kopf.Spec, namespace: str | None, patch: kopf.Patch, **_: object) -> None:
        await apply(str(namespace), spec["target"], [{"name": "CHAOS_ENABLED", "value": "true"}])
        patch.status["phase"] = "Running"

    async def deleted(spec: kopf.Spec, namespace: str | None, **_: object) -> None:
        await apply(str(namespace), spec["target"], [])

    kopf.on.login(registry=handlers)(_login)
    kopf.on.create(GROUP, VERSION, PLURAL, registry=handlers)(created)
    kopf.on.delete(GROUP, VERSION, PLURAL, registry=handlers)(deleted)
    return handlers


def _login(settings: kopf.OperatorSettings, **_: object) -> kopf.ConnectionInfo:
    return connection(settings)


async def _operate(namespace: str) -> None:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.background.cancellation_polling = 1
    client = ApiClient(partial(connection, settings))
    try:
        await kopf.operator(
            registry=registry(client), settings=settings, namespaces=[namespace], standalone=True
        )
    finally:
        await client.close()


if __name__ == "__main__":
    asyncio.run(_operate(sys.argv[1]))
