"""No Deployment carries CHAOS_ENABLED=true into production, whoever sets it; on the real API server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from shadowfault_testing.admission import ALLOWED, NAMESPACES, ApiServer, Verdict
from shadowfault_testing.api import APPLY, STRATEGIC, deployments, eventually
from shadowfault_testing.objects import container, deployment

if TYPE_CHECKING:
    from shadowfault_cluster import Cluster

pytestmark = pytest.mark.cluster

ON = {"name": "CHAOS_ENABLED", "value": "true"}
OFF = {"name": "CHAOS_ENABLED", "value": "false"}
RATE = {"name": "CHAOS_FAIL_RATE", "value": "0.1"}
NODE_PRODUCTION = {"name": "NODE_ENV", "value": "production"}
SOURCE = {"configMapKeyRef": {"name": "c", "key": "k"}}
OTHER_SOURCE = {"configMapKeyRef": {"name": "c", "key": "other"}}
SEED = {"name": "CHAOS_SEED", "valueFrom": SOURCE}
ADVICE = "remove CHAOS_ENABLED"


@pytest.fixture(scope="module")
def staging(server: ApiServer) -> str:
    return server.new_namespace("staging", {})


@pytest.fixture(scope="module")
def by_name(server: ApiServer) -> str:
    return server.new_namespace("shop", {}, suffix="-prod")


@pytest.fixture(scope="module")
def by_label(server: ApiServer) -> str:
    return server.new_namespace("shop", {"app.kubernetes.io/environment": "Production"})


def idle(
    *containers: dict[str, Any], name: str = "api", init: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """A Deployment without pods."""
    body = deployment(name, replicas=0, containers=list(containers))
    if init:
        body["spec"]["template"]["spec"]["initContainers"] = init
    return body


def switched(value: str) -> dict[str, Any]:
    return idle(container(env=[{"name": "CHAOS_ENABLED", "value": value}]))


def refused(verdict: Verdict, *words: str) -> bool:
    return verdict.status == 403 and all(word in verdict.message for word in words)


# Production namespaces


CARRIERS = {
    "true": switched("true"),
    "TRUE": switched("TRUE"),
    "True": switched("True"),
    "1": switched("1"),
    "blanks": switched(" true "),
    "newline": switched("true\n"),
    "second-container": idle(container("proxy"), container("api", env=[ON])),
    "init-container": idle(container(), init=[container("migrate", env=[ON])]),
    "among-others": idle(container(env=[{"name": "A", "value": "b"}, RATE, ON, NODE_PRODUCTION])),
    "twice": idle(container(env=[OFF, ON])),
}
HARMLESS = {
    "none": idle(container()),
    "false": switched("false"),
    "0": switched("0"),
    "empty": switched(""),
    "other-variable": idle(container(env=[{"name": "XCHAOS_ENABLED", "value": "true"}])),
    "rate-only": idle(container(env=[RATE])),
    "node-env": idle(container(env=[NODE_PRODUCTION])),
    "init-container-without-env": idle(container(), init=[container("migrate")]),
    "from-elsewhere": idle(  # cannot be seen from here: the operator's job and the SDK's
        container(env=[{"name": "CHAOS_ENABLED", "valueFrom": SOURCE}])
    ),
}


@pytest.mark.parametrize("body", CARRIERS.values(), ids=CARRIERS)
def test_chaos_is_refused_in_a_namespace_that_is_production(
    server: ApiServer, by_name: str, by_label: str, body: dict[str, Any]
) -> None:
    named = server.would_create(deployments(by_name), body)
    assert refused(named, f"namespace {by_name} is production by its name", ADVICE), str(named)
    labelled = server.would_create(deployments(by_label), body)
    mark = "production by its label app.kubernetes.io/environment=Production"
    assert refused(labelled, f"namespace {by_label} is {mark}", ADVICE), str(labelled)


def test_the_container_is_named(server: ApiServer, by_name: str) -> None:
    verdict = server.would_create(deployments(by_name), CARRIERS["init-container"])
    assert refused(verdict, "CHAOS_ENABLED=true in container migrate:"), str(verdict)


@pytest.mark.parametrize("body", HARMLESS.values(), ids=HARMLESS)
def test_what_carries_no_chaos_is_taken_there(server: ApiServer, by_name: str, body: dict[str, Any]) -> None:
    verdict = server.would_create(deployments(by_name), body)
    assert verdict.accepted, str(verdict)


@pytest.mark.parametrize("name", [name for name in CARRIERS if name != "among-others"])
def test_chaos_is_taken_elsewhere(server: ApiServer, staging: str, name: str) -> None:
    verdict = server.would_create(deployments(staging), CARRIERS[name])
    assert verdict.accepted, str(verdict)


def test_an_opt_in_does_not_help_production(server: ApiServer) -> None:
    namespace = server.new_namespace("prod", ALLOWED)
    assert refused(server.would_create(deployments(namespace), switched("true")), "is production by its name")


@pytest.fixture(scope="module")
def plain(server: ApiServer, by_name: str) -> str:
    """Path of a Deployment without chaos in production."""
    assert server.create(deployments(by_name), idle(container(), name="plain")).accepted
    return deployments(by_name, "plain")


def env_patch(*entries: dict[str, Any], name: str = "api") -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"name": name, "env": list(entries)}]}}}}


def test_chaos_cannot_be_set_later_by_patch(server: ApiServer, plain: str) -> None:
    verdict = server.ask("PATCH", plain, env_patch(ON), content_type=STRATEGIC)
    assert refused(verdict, "is production by its name", ADVICE), str(verdict)


def test_nor_by_server_side_apply_with_force(server: ApiServer, plain: str) -> None:
    body = {"apiVersion": "apps/v1", "kind": "Deployment", **env_patch(ON, RATE)}
    verdict = server.ask("PATCH", plain, body, content_type=APPLY, fieldManager="shadowfault", force="true")
    assert refused(verdict, "is production by its name", ADVICE), str(verdict)


def test_nor_by_update(server: ApiServer, plain: str) -> None:
    body = server.get(plain)
    body["spec"]["template"]["spec"]["containers"][0]["env"] = [ON]
    assert refused(server.ask("PUT", plain, body), "is production by its name", ADVICE)


def test_nor_by_kubectl_set_env(cluster: Cluster, plain: str, by_name: str) -> None:
    assert plain
    result = cluster.kubectl(
        "-n", by_name, "set", "env", "deployment/plain", "CHAOS_ENABLED=true", check=False
    )
    assert result.returncode != 0
    assert "is production by its name" in result.stderr


# NODE_ENV=production, in any namespace

BESIDE = {
    "same-container": idle(container(env=[NODE_PRODUCTION, ON])),
    "other-container": idle(container("a", env=[NODE_PRODUCTION]), container("b", env=[ON])),
    "init-container": idle(container(env=[ON]), init=[container("i", env=[NODE_PRODUCTION])]),
    "any-case": idle(container(env=[{"name": "NODE_ENV", "value": " Production\n"}, ON])),
}
NOT_BESIDE = {
    "staging": idle(container(env=[{"name": "NODE_ENV", "value": "staging"}, ON])),
    "no-chaos": idle(container(env=[NODE_PRODUCTION, OFF])),
    "longer": idle(container(env=[{"name": "NODE_ENV", "value": "production-like"}, ON])),
    "from-elsewhere": idle(container(env=[ON, {"name": "NODE_ENV", "valueFrom": SOURCE}])),
}


@pytest.mark.parametrize("body", BESIDE.values(), ids=BESIDE)
def test_chaos_beside_node_env_production_is_refused_anywhere(
    server: ApiServer, staging: str, body: dict[str, Any]
) -> None:
    verdict = server.would_create(deployments(staging), body)
    assert refused(verdict, "beside NODE_ENV=production", ADVICE), str(verdict)


@pytest.mark.parametrize("body", NOT_BESIDE.values(), ids=NOT_BESIDE)
def test_other_combinations_are_taken(server: ApiServer, staging: str, body: dict[str, Any]) -> None:
    verdict = server.would_create(deployments(staging), body)
    assert verdict.accepted, str(verdict)


def test_neither_can_be_added_to_the_other(server: ApiServer, staging: str) -> None:
    for name, there, added in (("chaos", ON, NODE_PRODUCTION), ("node", NODE_PRODUCTION, ON)):
        assert server.create(deployments(staging), idle(container(env=[there]), name=name)).accepted
        verdict = server.ask("PATCH", deployments(staging, name), env_patch(added), content_type=STRATEGIC)
        assert refused(verdict, "beside NODE_ENV=production"), str(verdict)


# What carried chaos before its namespace became production


@pytest.fixture(scope="module")
def turned(server: ApiServer) -> str:
    """A namespace that became production after chaos was set on its Deployments."""
    namespace = server.new_namespace("shop", {})
    both = (container("api", env=[ON, RATE, SEED]), container("worker", env=[ON, RATE]), container("idle"))
    for name in ("left", "scaled", "cleaned", "deleted"):
        body = idle(*both, name=name)
        body["metadata"]["finalizers"] = ["example.com/hold"]
        assert server.create(deployments(namespace), body).accepted
    server.merge(f"{NAMESPACES}/{namespace}", {"metadata": {"labels": {"environment": "production"}}})
    probe = switched("true")
    eventually(
        "the mark to be seen",
        lambda: refused(server.would_create(deployments(namespace), probe), "is production by its label"),
    )
    return namespace


def patch(server: ApiServer, path: str, body: dict[str, Any]) -> Verdict:
    return server.ask("PATCH", path, body, content_type=STRATEGIC)


def test_it_can_be_restarted_labelled_and_scaled(server: ApiServer, turned: str) -> None:
    path = deployments(turned, "scaled")
    restart = {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "2026-01-31T12:00:00Z"}}}
    for change in (
        {"spec": {"template": restart}},
        {"metadata": {"labels": {"a": "b"}}},
        {"spec": {"replicas": 0, "paused": True}},
        env_patch({"name": "OTHER", "value": "x"}),
        env_patch({"name": "OTHER", "value": "x"}, name="idle"),
    ):
        verdict = patch(server, path, change)
        assert verdict.accepted, f"{change}: {verdict}"
    assert server.merge(f"{path}/scale", {"spec": {"replicas": 0}}).accepted


@pytest.mark.parametrize(
    "entries",
    [
        [{"name": "CHAOS_FAIL_RATE", "value": "0.9"}],
        [{"name": "CHAOS_SCOPE", "value": "reads"}],
        [{"name": "CHAOS_ENABLED", "value": "TRUE"}],
        [{"name": "CHAOS_EXPIRES_AT", "value": "2999-01-01T00:00:00Z"}],
        [{"name": "CHAOS_FAIL_RATE", "value": "", "valueFrom": OTHER_SOURCE}],
        [{"name": "CHAOS_SEED", "valueFrom": OTHER_SOURCE}],
    ],
    ids=str,
)
def test_its_chaos_cannot_be_changed_to_other_chaos(
    server: ApiServer, turned: str, entries: list[dict[str, Any]]
) -> None:
    verdict = patch(server, deployments(turned, "left"), env_patch(*entries))
    assert refused(verdict, "in container api:", "is production by its label", ADVICE), str(verdict)


def test_its_chaos_cannot_spread_to_another_container(server: ApiServer, turned: str) -> None:
    verdict = patch(server, deployments(turned, "left"), env_patch(ON, name="idle"))
    assert refused(verdict, "in container idle:"), str(verdict)


def test_it_can_be_cleaned_one_container_at_a_time(server: ApiServer, turned: str) -> None:
    path = deployments(turned, "cleaned")
    removed = [{"name": "CHAOS_ENABLED", "$patch": "delete"}, {"name": "CHAOS_FAIL_RATE", "$patch": "delete"}]
    assert patch(server, path, env_patch(OFF)).accepted
    assert patch(server, path, env_patch(*removed, name="worker")).accepted
    assert refused(
        patch(server, path, env_patch(ON)), "is production by its label"
    )  # and not made dirty again


def test_it_can_be_deleted_and_its_finalizers_removed(server: ApiServer, turned: str) -> None:
    path = deployments(turned, "deleted")
    assert server.ask("DELETE", path, propagationPolicy="Foreground").accepted
    assert server.merge(path, {"metadata": {"finalizers": None}}).accepted
    assert server.ask("GET", path).status == 404
