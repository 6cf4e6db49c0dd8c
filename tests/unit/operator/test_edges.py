"""Settings, durations, HTTP to pods, and what is written where."""

from __future__ import annotations

import asyncio
import importlib.util
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from shadowfault_operator.disarm import HttpDisarmer
from shadowfault_operator.durations import format_instant, parse_duration, parse_instant
from shadowfault_operator.known import Known
from shadowfault_operator.kube import label_selector
from shadowfault_operator.metrics import Metrics
from shadowfault_operator.model import InvalidSpec, Spec, parse_spec, parse_status, status_document
from shadowfault_operator.ports import Pod
from shadowfault_operator.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


def test_the_source_root_is_no_package() -> None:
    """operator/__init__.py would take the place of Python's own module `operator`."""
    assert not (Path(__file__).parents[3] / "operator" / "__init__.py").exists()
    found = importlib.util.find_spec("operator")
    assert found is not None
    assert found.origin is not None
    assert found.origin.endswith("operator.py")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15m", 900), ("1h30m", 5400), ("90s", 90), ("4h", 14400), ("1h0m1s", 3601), ("0s", 0)],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "15", "m", "1.5h", "-1m", "15m ", "30m1h", "1d", None, 15])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_duration(text)


def test_instants() -> None:
    assert format_instant(parse_instant("2026-03-01T13:00:00.9+01:00")) == "2026-03-01T12:00:00Z"
    with pytest.raises(ValueError, match="no offset"):
        parse_instant("2026-03-01T12:00:00")


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({"rate": 1}, True),
        ({"rate": 0}, True),
        ({"rate": "0.1"}, False),
        ({"rate": True}, False),
        ({"rate": float("nan")}, False),
        ({"duration": "0s"}, False),
        ({"duration": "4h1s"}, False),
        ({"targetRef": {"name": ""}}, False),
        ({"targetRef": {"name": "x", "kind": "StatefulSet"}}, False),
        ({"seed": ""}, False),
        ({"suspend": True}, True),
    ],
)
def test_specs(change: dict[str, Any], valid: bool) -> None:
    spec = parse_spec({"targetRef": {"name": "api"}, "rate": 0.1, "duration": "10m", **change})
    assert isinstance(spec, Spec if valid else InvalidSpec)
    if isinstance(spec, InvalidSpec):
        assert next(iter(change)) in spec.problem


def test_a_status_survives_the_way_to_the_api_server_and_back(scene: Any) -> None:
    scene.containers[0]["env"] = [
        {"name": "CHAOS_SEED", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    ]
    status = replace(scene.running(), conditions=({"type": "Ready", "status": "True"},), message="m")
    assert parse_status(status_document(status)) == status


def test_damage_in_one_field_of_a_status_costs_that_field_only(scene: Any) -> None:
    document = status_document(scene.running()) | {"phase": "Dancing", "expiresAt": "soon"}
    status = parse_status(document)
    assert (status.phase, status.expires_at) == (None, None)
    assert status.injection is not None


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHADOWFAULT_NAMESPACES", "staging, qa,")
    monkeypatch.setenv("HOST", "127.0.10.3")
    monkeypatch.setenv("PORT", "9090")
    monkeypatch.setenv("LOG_LEVEL", "debug")
    settings = Settings()
    assert settings.namespaces == ("staging", "qa")
    assert (settings.host, settings.port, settings.log_level) == ("127.0.10.3", 9090, "DEBUG")
    monkeypatch.setenv("PORT", "http")
    with pytest.raises(ValidationError, match="PORT"):
        Settings()


def test_label_selectors() -> None:
    selector = {
        "matchLabels": {"app": "api"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "old", "operator": "DoesNotExist"},
            {"key": "new", "operator": "Exists"},
            {"key": "zone", "operator": "NotIn", "values": ["x"]},
        ],
    }
    assert label_selector(selector) == "app=api,tier in (a,b),!old,new,zone notin (x)"


class PodsOnLoopback:
    """The port of the surroundings, as far as disarming goes."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def pods(self, _namespace: str, _target: object) -> list[Pod]:
        return [Pod(f"pod-{address}", address) for address in self._addresses]


@asynccontextmanager
async def pods_answer(
    scene: Any,
    disarm: Callable[[web.Request], Awaitable[web.StreamResponse]],
    *addresses: str,
    missing: str = "",
) -> AsyncIterator[tuple[HttpDisarmer, Metrics]]:
    """Pods on these addresses of loopback, one that is `missing`, and who disarms them."""
    app = web.Application()
    app.add_routes([web.post("/chaos/disarm", disarm)])
    runner = web.AppRunner(app)
    await runner.setup()
    port = 0
    for address in addresses:
        await web.TCPSite(runner, address, port).start()
        port = runner.addresses[0][1]
    scene.containers[0]["ports"] = [{"containerPort": 1}, {"name": "http", "containerPort": port}]
    metrics = Metrics(Known())
    surroundings = PodsOnLoopback(*addresses, *([missing] if missing else []))
    try:
        yield HttpDisarmer(surroundings, metrics), metrics  # type: ignore[arg-type] - pods() will do
    finally:
        await runner.cleanup()


async def test_pods_are_disarmed_in_parallel_and_a_slow_or_missing_one_delays_nobody(scene: Any) -> None:
    told: dict[str, object] = {}
    everyone = asyncio.Event()

    async def disarm(request: web.Request) -> web.Response:
        # Each answers only when all have been asked: one after the other would never end.
        told[request.host.split(":")[0]] = await request.json()
        if len(told) == 3:
            everyone.set()
        await everyone.wait()
        match request.host.split(":")[0]:
            case "127.0.0.1":
                return web.json_response({"disarmed": True})
            case "127.0.0.2":
                return web.json_response({"disarmed": False})
            case _:
                return web.json_response({"title": "Conflict"}, status=409)

    here = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
    async with pods_answer(scene, disarm, *here, missing="127.0.0.9") as (disarmer, metrics):
        disarmer.disarm("staging", scene.target(), "api", "uid")
        assert told == {}  # it has returned before anything was sent
        await disarmer.close()
    assert told == {address: {"experimentUid": "uid"} for address in here}
    exposition = metrics.exposition().decode()
    for sample in ('result="disarmed"} 1.0', 'result="declined"} 2.0', 'result="unreachable"} 1.0'):
        assert f"shadowfault_disarm_requests_total{{{sample}" in exposition


@pytest.mark.parametrize(
    "body",
    ['{"disarmed": true, "more": "' + "x" * 5000 + '"}', "disarmed", '["disarmed"]', "[" * 4000, ""],
    ids=["too long", "no JSON", "no object", "nested", "nothing"],
)
async def test_what_a_pod_says_is_read_up_to_a_length_and_need_make_no_sense(scene: Any, body: str) -> None:
    async def disarm(_request: web.Request) -> web.Response:
        return web.Response(text=body, content_type="application/json")

    async with pods_answer(scene, disarm, "127.0.0.1") as (disarmer, metrics):
        disarmer.disarm("staging", scene.target(), "api", "uid")
        await disarmer.close()
    assert 'shadowfault_disarm_requests_total{result="declined"} 1.0' in metrics.exposition().decode()
