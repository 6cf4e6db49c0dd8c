"""What has to be allowed is what the manifests allow, and what is missing is told once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kopf
import pytest
import yaml
from aiohttp import web

from shadowfault_operator import permissions as module
from shadowfault_operator.client import ApiClient
from shadowfault_operator.errors import RefusedError, UnavailableError
from shadowfault_operator.known import Known
from shadowfault_operator.metrics import Metrics
from shadowfault_operator.permissions import (
    CLUSTER,
    INJECTED,
    OWN,
    SERVED,
    Permission,
    Permissions,
    needed,
    review,
)

if TYPE_CHECKING:
    from collections.abc import Callable

DEPLOY = Path(__file__).parents[3] / "deploy" / "operator.yaml"


def allowed_by(role: str) -> set[tuple[str, str, str]]:
    """(group, resource, verb) of a role of the manifests."""
    documents = [item for item in yaml.safe_load_all(DEPLOY.read_text()) if item]
    (found,) = (
        item for item in documents if item["kind"].endswith("Role") and item["metadata"]["name"] == role
    )
    return {
        (group, resource, verb)
        for rule in found["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def flat(*rules: Any) -> set[tuple[str, str, str]]:
    return {(group, resource, verb) for group, resource, verbs in rules for verb in verbs}


def test_what_is_needed_is_what_the_manifests_allow_and_no_more() -> None:
    assert allowed_by("shadowfault-operator") == flat(*SERVED, *CLUSTER)
    assert allowed_by("shadowfault-injector") == flat(*INJECTED)
    assert allowed_by("shadowfault-halt") == flat(*OWN)


def test_needed_where() -> None:
    everywhere = needed((), ["a", "b"], "home")
    assert Permission("patch", "apps", "deployments", "a") in everywhere
    assert Permission("patch", "apps", "deployments", "b") in everywhere
    assert Permission("list", "apps", "deployments") in everywhere
    assert Permission("list", "", "configmaps", "home", "shadowfault-halt") in everywhere
    assert Permission("list", "apps", "deployments", "a") in needed(["a"], ["a"], "home")
    assert Permission("list", "apps", "deployments") not in needed(["a"], ["a"], "home")


def test_the_question() -> None:
    permission = Permission("patch", "chaos.shadowfault.dev", "chaosexperiments/status", "a")
    assert review(permission)["spec"] == {
        "resourceAttributes": {
            "verb": "patch",
            "group": "chaos.shadowfault.dev",
            "resource": "chaosexperiments",
            "subresource": "status",
            "namespace": "a",
        }
    }


class Judge:
    """Answers as the API server would; `refused` are (verb, resource), `away` is for no answer at all."""

    def __init__(self) -> None:
        self.refused: set[tuple[str, str]] = set()
        self.away = False
        self.nonsense = False

    async def request(self, method: str, path: str, *, body: Any) -> dict[str, Any]:
        assert (method, path.rpartition("/")[2]) == ("POST", "selfsubjectaccessreviews")
        if self.away:
            raise UnavailableError("away")
        asked = body["spec"]["resourceAttributes"]
        allowed = (asked["verb"], asked["resource"]) not in self.refused
        return {"status": None if self.nonsense else {"allowed": allowed}}


PODS, EVENTS = Permission("list", "", "pods", "a"), Permission("create", "", "events")


@pytest.fixture
def judge() -> Judge:
    return Judge()


@pytest.fixture
def permissions(judge: Judge) -> Permissions:
    return Permissions(judge, Metrics(Known()), list, every_seconds=1)  # type: ignore[arg-type]


def shown(permissions: Permissions) -> set[tuple[str, ...]]:
    return {
        (sample.labels["verb"], sample.labels["resource"], sample.labels["namespace"])
        for family in permissions._metrics.missing_permissions.collect()
        for sample in family.samples
    }


async def test_what_is_missing_is_shown_until_it_is_back(permissions: Permissions, judge: Judge) -> None:
    await permissions.check([PODS, EVENTS])
    assert shown(permissions) == set()
    judge.refused = {("list", "pods")}
    await permissions.check([PODS, EVENTS])
    assert permissions.missing == {PODS}
    assert shown(permissions) == {("list", "pods", "a")}
    judge.refused = {("create", "events")}
    await permissions.check([PODS, EVENTS])
    assert shown(permissions) == {("create", "events", "")}
    judge.refused = set()
    await permissions.check(permissions.missing)
    assert shown(permissions) == set()


@pytest.mark.parametrize("how", ["away", "nonsense"])
async def test_without_an_answer_all_is_as_it_was(permissions: Permissions, judge: Judge, how: str) -> None:
    judge.refused = {("list", "pods")}
    await permissions.check([PODS])
    setattr(judge, how, True)
    judge.refused = {("create", "events")}
    await permissions.check([PODS, EVENTS])
    assert permissions.missing == {PODS}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


async def test_a_refusal_has_it_asked_and_what_is_missing_is_asked_again(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AGAIN", 0.02)
    wanted = 0

    def everything() -> list[Permission]:
        nonlocal wanted
        wanted += 1
        return [PODS]

    asking = Permissions(judge, Metrics(Known()), everything, every_seconds=3600)  # type: ignore[arg-type]
    task = asyncio.create_task(asking.run())
    await until(lambda: wanted == 1)
    judge.refused = {("list", "pods")}
    asking.refused()
    await until(lambda: asking.missing == {PODS})
    judge.refused = set()
    await until(lambda: asking.missing == set())
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_each_refusal_of_the_api_server_is_noticed() -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"reason": "Forbidden", "message": "no"}, status=403)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = ApiClient(lambda: kopf.ConnectionInfo(server=f"http://127.0.0.1:{runner.addresses[0][1]}"))
    noticed: list[str] = []
    client.forbidden = lambda: noticed.append("refused")
    with pytest.raises(RefusedError):
        await client.request("GET", "/api/v1/pods")
    with pytest.raises(RefusedError):
        async for _ in client.watch("/api/v1/pods", {}, seconds=1):
            pass
    assert len(noticed) == 2
    await client.close()
    await runner.cleanup()
