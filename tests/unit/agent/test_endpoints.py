"""Who answers for a Service, and in which turn."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowfault_cluster.agent.endpoints import fronts
from shadowfault_cluster.agent.proxy import Balancer

Json = dict[str, Any]
NODE = "127.9.0.10"


def pod(
    ip: str, *, ready: bool = True, labels: Json | None = None, namespace: str = "a", **fields: Any
) -> Json:
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    metadata = {"namespace": namespace, "labels": labels or {"app": "web"}, **fields}
    ports = [{"name": "http", "containerPort": 8080}]
    return {
        "metadata": metadata,
        "spec": {"containers": [{"ports": ports}]},
        "status": {"podIP": ip, "phase": "Running", "conditions": [condition]},
    }


def service(port: Json, **spec: Any) -> Json:
    whole = {"clusterIP": "127.9.20.2", "selector": {"app": "web"}, "ports": [port], **spec}
    return {"metadata": {"namespace": "a"}, "spec": whole}


PODS = [
    pod("1"),
    pod("2"),
    pod("3", ready=False),
    pod("4", labels={"app": "other"}),
    pod("5", namespace="b"),
    pod("6", deletionTimestamp="now"),
]


@pytest.mark.parametrize(
    ("port", "target"),
    [({"port": 80}, 80), ({"port": 80, "targetPort": 81}, 81), ({"port": 80, "targetPort": "http"}, 8080)],
)
def test_ready_pods_answer_at_the_target_port(port: Json, target: int) -> None:
    [front] = fronts(service(port), PODS, NODE)
    assert (front.listen, front.backends) == (("127.9.20.2", 80), (("1", target), ("2", target)))


def test_an_unknown_port_name_has_no_backends() -> None:
    [front] = fronts(service({"port": 80, "targetPort": "nope"}), PODS, NODE)
    assert front.backends == ()


def test_not_ready_addresses_may_be_published() -> None:
    [front] = fronts(service({"port": 80}, publishNotReadyAddresses=True), PODS, NODE)
    assert [ip for ip, _ in front.backends] == ["1", "2", "3", "6"]


def test_a_node_port_is_a_second_front() -> None:
    listening = [front.listen for front in fronts(service({"port": 80, "nodePort": 30080}), PODS, NODE)]
    assert listening == [("127.9.20.2", 80), (NODE, 30080)]


@pytest.mark.parametrize(
    "spec",
    [
        {"clusterIP": "None"},
        {"type": "ExternalName"},
        {"selector": None},
        {"ports": [{"port": 1, "protocol": "UDP"}]},
    ],
)
def test_what_cannot_be_served_has_no_front(spec: Json) -> None:
    assert fronts(service({"port": 80}, **spec), PODS, NODE) == []


@given(st.integers(1, 8), st.integers(1, 40))
def test_connections_are_spread_evenly(backends: int, connections: int) -> None:
    balancer = Balancer()
    balancer.backends = tuple((str(number), 80) for number in range(backends))
    counts = dict.fromkeys(balancer.backends, 0)
    for _ in range(connections):
        [chosen, *_others] = balancer.order()
        balancer.opened(chosen)
        counts[chosen] += 1
    assert max(counts.values()) - min(counts.values()) <= 1


def test_short_connections_take_turns() -> None:
    balancer = Balancer()
    balancer.backends = (("1", 80), ("2", 80), ("3", 80))
    assert {balancer.order()[0] for _ in range(3)} == set(balancer.backends)
