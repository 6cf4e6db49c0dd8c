"""The kubelet's rules for environment and command line."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowfault_cluster.agent.environment import (
    CONFIG_MAP,
    SECRET,
    EnvironmentResolutionError,
    Sources,
    command_line,
    expand,
    referenced_objects,
    resolve,
    service_variables,
)

Json = dict[str, Any]


def pod(**spec: Any) -> Json:
    metadata = {
        "name": "api-1",
        "namespace": "staging",
        "uid": "u1",
        "labels": {"app": "api", "a/b": "c"},
        "annotations": {"note": "hi"},
    }
    spec = {"nodeName": "node", "serviceAccountName": "runner", "containers": [], **spec}
    return {"kind": "Pod", "metadata": metadata, "spec": spec}


def sources(objects: dict[tuple[str, str], Json | None] | None = None, **spec: Any) -> Sources:
    services = [
        service("kubernetes", "default", 443, name="https"),
        service("web-app", "staging", 80),
        service("other", "elsewhere", 80),
    ]
    return Sources(
        pod(**spec), "127.9.10.2", "127.9.0.10", {"cpu": "2", "memory": "4Gi"}, services, objects or {}
    )


def service(title: str, namespace: str, port: int, **fields: Any) -> Json:
    spec = {"clusterIP": "127.9.20.7", "ports": [{"port": port, "protocol": "TCP", **fields}]}
    return {"metadata": {"name": title, "namespace": namespace}, "spec": spec}


def container(**fields: Any) -> Json:
    return {"name": "main", **fields}


def declared(
    entries: list[Json], objects: dict[tuple[str, str], Json | None] | None = None
) -> dict[str, str]:
    """What `entries` resolve to, without the service variables."""
    values = resolve(container(env=entries), sources(objects, enableServiceLinks=False))
    return {name: value for name, value in values.items() if not name.startswith("KUBERNETES_")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$(A)", "1"),
        ("<$(A)$(B)>", "<12>"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(MISSING)", "$(MISSING)"),
        ("$(A", "$(A"),
        ("$A $", "$A $"),
        ("$()", "$()"),
        ("cost: $5", "cost: $5"),
    ],
)
def test_references_are_expanded_as_kubernetes_does(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}, {"A": "other", "B": "2"}) == expected


@given(st.text(alphabet="$()A x"))
def test_escaping_every_dollar_gives_the_text_back(text: str) -> None:
    assert expand(text.replace("$", "$$"), {"A": "1"}) == text


def test_later_variables_win_and_see_only_earlier_ones() -> None:
    entries = [
        {"name": "A", "value": "$(B)"},
        {"name": "B", "value": "1"},
        {"name": "C", "value": "$(B)"},
        {"name": "B", "value": "2"},
        {"name": "EMPTY"},
    ]
    assert declared(entries) == {"A": "$(B)", "B": "2", "C": "1", "EMPTY": ""}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "api-1"),
        ("metadata.namespace", "staging"),
        ("metadata.uid", "u1"),
        ("metadata.labels['app']", "api"),
        ("metadata.labels['a/b']", "c"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['note']", "hi"),
        ("spec.nodeName", "node"),
        ("spec.serviceAccountName", "runner"),
        ("status.hostIP", "127.9.0.10"),
        ("status.podIP", "127.9.10.2"),
        ("status.podIPs", "127.9.10.2"),
    ],
)
def test_fields_of_the_pod(path: str, expected: str) -> None:
    assert declared([{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}]) == {"X": expected}


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ({"resource": "limits.cpu"}, "1"),
        ({"resource": "limits.cpu", "divisor": "1m"}, "500"),
        ({"resource": "limits.memory", "divisor": "1Mi"}, "4096"),  # no limit: what the node has
        ({"resource": "requests.memory"}, "0"),
    ],
)
def test_resources_of_a_container(reference: Json, expected: str) -> None:
    item = container(
        env=[{"name": "X", "valueFrom": {"resourceFieldRef": reference}}],
        resources={"limits": {"cpu": "500m"}},
    )
    assert resolve(item, sources(containers=[item]))["X"] == expected


OBJECTS: dict[tuple[str, str], Json | None] = {
    (CONFIG_MAP, "settings"): {"data": {"key": "from map", "A": "map"}},
    (SECRET, "secrets"): {"data": {"key": base64.b64encode(b"from secret").decode()}},
    (CONFIG_MAP, "gone"): None,
}


def test_keys_of_config_maps_and_secrets() -> None:
    entries = [
        {"name": "M", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "key"}}},
        {"name": "S", "valueFrom": {"secretKeyRef": {"name": "secrets", "key": "key"}}},
        {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "key", "optional": True}}},
        {"name": "P", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "no", "optional": True}}},
    ]
    assert declared(entries, OBJECTS) == {"M": "from map", "S": "from secret"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "gone", "key": "key"}}, 'configmap "gone" not found'),
        ({"secretKeyRef": {"name": "gone", "key": "key"}}, 'secret "gone" not found'),
        (
            {"configMapKeyRef": {"name": "settings", "key": "no"}},
            "couldn't find key no in ConfigMap staging/settings",
        ),
        ({"fieldRef": {"fieldPath": "spec.hostname"}}, "fieldRef spec.hostname is not supported"),
        ({"fileKeyRef": {}}, "valueFrom.fileKeyRef is not supported"),
    ],
)
def test_what_is_missing_is_named(source: Json, message: str) -> None:
    with pytest.raises(EnvironmentResolutionError, match=message):
        declared([{"name": "X", "valueFrom": source}], OBJECTS)


def test_env_beats_env_from_and_the_last_source_beats_the_first() -> None:
    item = container(
        envFrom=[
            {"configMapRef": {"name": "settings"}},
            {"prefix": "P_", "configMapRef": {"name": "settings"}},
            {"secretRef": {"name": "secrets"}},
            {"configMapRef": {"name": "gone", "optional": True}},
        ],
        env=[{"name": "A", "value": "env of $(P_A)"}],
    )
    values = resolve(item, sources(OBJECTS))
    assert (values["A"], values["P_A"], values["key"]) == ("env of map", "map", "from secret")
    with pytest.raises(EnvironmentResolutionError, match='configmap "gone" not found'):
        resolve(container(envFrom=[{"configMapRef": {"name": "gone"}}]), sources(OBJECTS))


def test_the_objects_to_fetch() -> None:
    item = container(
        envFrom=[{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "b"}}],
        env=[
            {"name": "X", "valueFrom": {"secretKeyRef": {"name": "c", "key": "k"}}},
            {"name": "Y", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
    )
    assert referenced_objects(item) == {(CONFIG_MAP, "a"), (SECRET, "b"), (SECRET, "c")}


def test_service_variables() -> None:
    services = [
        *sources().services,
        service("headless", "staging", 1) | {"spec": {"clusterIP": "None", "ports": []}},
    ]
    with_links = service_variables(services, "staging", links=True)
    assert with_links["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
    assert {key: value for key, value in with_links.items() if key.startswith("WEB_APP")} == {
        "WEB_APP_SERVICE_HOST": "127.9.20.7",
        "WEB_APP_SERVICE_PORT": "80",
        "WEB_APP_PORT": "tcp://127.9.20.7:80",
        "WEB_APP_PORT_80_TCP": "tcp://127.9.20.7:80",
        "WEB_APP_PORT_80_TCP_PROTO": "tcp",
        "WEB_APP_PORT_80_TCP_PORT": "80",
        "WEB_APP_PORT_80_TCP_ADDR": "127.9.20.7",
    }
    assert not any(name.startswith(("OTHER", "HEADLESS")) for name in with_links)
    without = service_variables(services, "staging", links=False)
    assert {name.split("_")[0] for name in without} == {"KUBERNETES"}


def test_a_declared_variable_beats_a_service_variable() -> None:
    item = container(
        env=[{"name": "WEB_APP_PORT", "value": "8080"}, {"name": "X", "value": "$(WEB_APP_SERVICE_HOST)"}]
    )
    values = resolve(item, sources())
    assert (values["WEB_APP_PORT"], values["X"]) == ("8080", "127.9.20.7")


def test_command_and_arguments() -> None:
    item = container(command=["run", "$(A)"], args=["$$(A)", "-p", "$(B)"])
    assert command_line(item, {"A": "1"}) == ["run", "1", "$(A)", "-p", "$(B)"]
    assert command_line(container(args=["x"]), {}) == []
