"""The small decisions: thresholds, back-off, scheduling, addresses, quantities, unsupported fields."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowfault_cluster.agent.addresses import AddressPool
from shadowfault_cluster.agent.backoff import CrashBackOff
from shadowfault_cluster.agent.binder import obstacle, wants_binding
from shadowfault_cluster.agent.probes import Threshold, resolve_port
from shadowfault_cluster.agent.quantities import divided, parse_quantity
from shadowfault_cluster.agent.unsupported import (
    unsupported_pod_fields,
    unsupported_service_fields,
    wants_token,
)

Json = dict[str, Any]


@pytest.mark.parametrize(
    ("outcomes", "verdicts"),
    [
        ("+", "+"),
        ("--", ".."),
        ("---", "..-"),
        ("--+---", "..+++-"),
        ("---+", "..-+"),
    ],
)
def test_thresholds(outcomes: str, verdicts: str) -> None:
    threshold = Threshold(successes=1, failures=3, verdict=None)
    seen = [threshold.feed(healthy=outcome == "+") for outcome in outcomes]
    assert "".join({None: ".", True: "+", False: "-"}[verdict] for verdict in seen) == verdicts


def test_a_success_threshold_above_one() -> None:
    threshold = Threshold(successes=2, failures=1, verdict=False)
    assert [threshold.feed(healthy=healthy) for healthy in (True, False, True, True)] == [
        False,
        False,
        False,
        True,
    ]


def test_back_off_doubles_to_its_cap_and_is_forgiven() -> None:
    back_off = CrashBackOff()
    assert [back_off.delay(0) for _ in range(11)] == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert [back_off.delay(600), back_off.delay(1)] == [0, 1]


@pytest.mark.parametrize(
    ("spec", "room", "reason"),
    [
        ({}, True, None),
        ({}, False, "Unschedulable"),
        ({"nodeSelector": {"os": "linux"}}, True, None),
        ({"nodeSelector": {"os": "windows"}}, True, "Unschedulable"),
        ({"schedulingGates": [{"name": "wait"}]}, True, "SchedulingGated"),
    ],
)
def test_what_keeps_a_pod_from_the_node(spec: Json, reason: str | None, *, room: bool) -> None:
    found = obstacle({"spec": spec}, {"os": "linux"}, room=room)
    assert (found.reason if found else None) == reason


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({}, True),
        ({"nodeName": "n"}, False),
        ({"schedulerName": "mine"}, False),
        ({"schedulerName": "default-scheduler"}, True),
    ],
)
def test_whose_pods_are_bound(spec: Json, *, wanted: bool) -> None:
    assert wants_binding({"metadata": {}, "spec": spec}) is wanted
    assert not wants_binding({"metadata": {"deletionTimestamp": "now"}, "spec": spec})


@given(st.lists(st.booleans(), max_size=60))
def test_an_address_is_never_given_twice(steps: list[bool]) -> None:
    pool, held = AddressPool(IPv4Network("127.9.10.0/28")), []
    for take in steps:
        if take:
            address = pool.take()
            assert (address is None) == (len(held) == pool.size)
            if address is not None:
                assert address not in held
                held.append(address)
        elif held:
            pool.give_back(held.pop(0))
    assert pool.free + len(held) == pool.size


def test_a_free_address_can_be_asked_for_and_a_used_one_is_reused_last() -> None:
    pool = AddressPool(IPv4Network("127.9.10.0/29"))
    assert pool.take("127.9.10.4") == "127.9.10.4"
    assert pool.take("127.9.10.4") == "127.9.10.2"
    pool.give_back("127.9.10.2")
    assert [pool.take() for _ in range(4)] == ["127.9.10.3", "127.9.10.5", "127.9.10.6", "127.9.10.2"]


@pytest.mark.parametrize(
    ("text", "divisor", "expected"),
    [
        ("100m", "0", "1"),
        ("1500m", "1", "2"),
        ("1500m", "1m", "1500"),
        ("1Gi", "1Mi", "1024"),
        ("2", "1", "2"),
        ("1e3", "1k", "1"),
    ],
)
def test_quantities(text: str, divisor: str, expected: str) -> None:
    assert divided(text, divisor) == expected


def test_a_bad_quantity_is_refused() -> None:
    with pytest.raises(ValueError, match="12 apples"):
        parse_quantity("12 apples")


def test_ports_by_name_and_number() -> None:
    ports = [{"name": "http", "containerPort": 80}]
    assert [resolve_port(name, ports) for name in (8080, "8080", "http")] == [8080, 8080, 80]
    with pytest.raises(ValueError, match="no port named 'grpc'"):
        resolve_port("grpc", ports)


# What the API server makes of the smallest Deployment pod.
DEFAULTS: Json = {
    "dnsPolicy": "ClusterFirst",
    "enableServiceLinks": True,
    "preemptionPolicy": "PreemptLowerPriority",
    "priority": 0,
    "restartPolicy": "Always",
    "schedulerName": "default-scheduler",
    "securityContext": {},
    "serviceAccount": "default",
    "serviceAccountName": "default",
    "terminationGracePeriodSeconds": 30,
    "tolerations": [{"key": "node.kubernetes.io/not-ready"}],
    "volumes": [
        {
            "name": "kube-api-access-x",
            "projected": {"sources": [{"serviceAccountToken": {"expirationSeconds": 3607}}]},
        }
    ],
}
CONTAINER: Json = {
    "name": "main",
    "image": "none",
    "imagePullPolicy": "Always",
    "command": ["true"],
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "volumeMounts": [
        {"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    ],
}


def pod(container: Json | None = None, **spec: Any) -> Json:
    return {"spec": DEFAULTS | spec | {"containers": [CONTAINER | (container or {})]}}


def test_defaults_are_not_reported() -> None:
    assert unsupported_pod_fields(pod()) == []


@pytest.mark.parametrize(
    ("item", "path"),
    [
        (pod(hostNetwork=True), "spec.hostNetwork"),
        (pod(affinity={"podAntiAffinity": {}}), "spec.affinity"),
        (pod(dnsPolicy="None"), "spec.dnsPolicy"),
        (pod(securityContext={"runAsUser": 1}), "spec.securityContext"),
        (pod(volumes=[{"name": "tmp", "emptyDir": {}}]), "spec.volumes[tmp].emptyDir"),
        (pod(fieldOfTheFuture="x"), "spec.fieldOfTheFuture"),
        (pod({"resources": {"limits": {"cpu": 1}}}), "spec.containers[main].resources"),
        (pod({"securityContext": {"readOnlyRootFilesystem": True}}), "spec.containers[main].securityContext"),
        (pod({"tty": True}), "spec.containers[main].tty"),
        (pod({"terminationMessagePath": "/result"}), "spec.containers[main].terminationMessagePath"),
        (pod({"ports": [{"containerPort": 1, "hostPort": 2}]}), "spec.containers[main].ports[1].hostPort"),
        (pod({"livenessProbe": {"grpc": {"port": 1}}}), "spec.containers[main].livenessProbe.grpc"),
        (pod({"lifecycle": {"stopSignal": "SIGUSR1"}}), "spec.containers[main].lifecycle.stopSignal"),
    ],
)
def test_what_has_no_effect_is_named(item: Json, path: str) -> None:
    assert unsupported_pod_fields(item) == [path]


def test_the_token_of_a_pod() -> None:
    assert wants_token(pod()) == {"expirationSeconds": 3607}
    assert wants_token(pod(volumes=[])) is None


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, []),
        ({"type": "ExternalName"}, ["ExternalName"]),
        ({"clusterIP": "None"}, ["clusterIP: None"]),
        ({"selector": {}}, ["selector: empty"]),
        ({"sessionAffinity": "ClientIP"}, ["sessionAffinity"]),
        ({"type": "LoadBalancer"}, ["LoadBalancer"]),
        ({"ports": [{"port": 53, "protocol": "UDP"}]}, ["protocol: UDP"]),
    ],
)
def test_what_a_service_asks_for_in_vain(spec: Json, words: list[str]) -> None:
    found = unsupported_service_fields({"spec": {"selector": {"a": "b"}, "clusterIP": "1", **spec}})
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))
