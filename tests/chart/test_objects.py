"""What the chart makes: restricted pods, narrow rules, one source for CRDs and policies."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from shadowfault_testing.chart import ROOT, Helm, pods

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.helm

Json = dict[str, Any]


def of_kind(objects: Iterable[Json], *kinds: str) -> list[Json]:
    return [item for item in objects if item["kind"] in kinds]


def test_every_pod_is_restricted(rendered: list[Json]) -> None:
    for name, _, spec in pods(rendered):
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert {next(iter(set(volume) - {"name"})) for volume in spec.get("volumes", [])} <= {
            "emptyDir",
            "configMap",
            "secret",
        }
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["requests"], name
            assert container["resources"]["limits"]["memory"], name


def test_a_token_is_where_it_is_used(rendered: list[Json]) -> None:
    mounted = {name for name, _, spec in pods(rendered) if spec.get("automountServiceAccountToken", True)}
    assert mounted == {"Deployment shadowfault-operator", "Job shadowfault-drain"}


def test_no_secret_is_in_an_environment_in_plain(rendered: list[Json]) -> None:
    for name, _, spec in pods(rendered):
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            for entry in container.get("env", []):
                if "PASSWORD" in entry["name"] or "URL" in entry["name"] or "TOKEN" in entry["name"]:
                    assert "secretKeyRef" in entry["valueFrom"], (name, entry)


def test_chaos_is_in_no_manifest(rendered: list[Json]) -> None:
    for _, _, spec in pods(rendered):
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert not [e for e in container.get("env", []) if e["name"].startswith("CHAOS_")]


def test_deployments_are_patched_in_allowed_namespaces_only(helm: Helm) -> None:
    objects = helm.objects("full")
    roles = of_kind(objects, "ClusterRole", "Role")
    may_patch = {
        role["metadata"]["name"]
        for role in roles
        for rule in role["rules"]
        if "deployments" in rule["resources"] and {"patch", "update", "*"} & set(rule["verbs"])
    }
    assert may_patch == {"shadowfault-injector"}
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert "secrets" not in rule["resources"]
    assert not may_patch & {item["roleRef"]["name"] for item in of_kind(objects, "ClusterRoleBinding")}
    bound = [i for i in of_kind(objects, "RoleBinding") if i["roleRef"]["name"] == "shadowfault-injector"]
    assert sorted(item["metadata"]["namespace"] for item in bound) == ["qa", "staging"]
    default = of_kind(helm.objects("default"), "RoleBinding")
    assert "shadowfault-injector" not in {item["roleRef"]["name"] for item in default}


def test_authors_are_who_may_view_and_edit_and_need_not_be(helm: Helm) -> None:
    prefix = "rbac.authorization.k8s.io/aggregate-to-"

    def aggregated(*settings: str) -> dict[str, set[str]]:
        return {
            role["metadata"]["name"]: {
                name.removeprefix(prefix) for name in role["metadata"]["labels"] if name.startswith(prefix)
            }
            for role in of_kind(helm.objects("default", *settings), "ClusterRole")
            if role["metadata"]["labels"]["app.kubernetes.io/component"] == "authors"
        }

    assert aggregated() == {
        "shadowfault-view": {"view", "edit", "admin"},
        "shadowfault-edit": {"edit", "admin"},
    }
    assert aggregated("aggregateClusterRoles=false") == {}


def test_every_pod_has_a_network_policy_that_names_its_peers(rendered: list[Json]) -> None:
    policies = of_kind(rendered, "NetworkPolicy")
    for name, metadata, _ in pods(rendered):
        if name == "Pod shadowfault-test":
            continue  # it ends within seconds, and is where a person looks from
        chosen = [
            policy
            for policy in policies
            if policy["metadata"]["namespace"] == metadata["namespace"]
            and selects(policy["spec"]["podSelector"], metadata["labels"])
        ]
        assert len(chosen) == 1, name
        assert sorted(chosen[0]["spec"]["policyTypes"]) == ["Egress", "Ingress"]
        for rule in [*chosen[0]["spec"].get("ingress", []), *chosen[0]["spec"].get("egress", [])]:
            assert rule.get("ports"), name
            dns = {port["port"] for port in rule["ports"]} == {53}
            assert dns or rule.get("from") or rule.get("to"), name


def selects(selector: Json, labels: dict[str, str]) -> bool:
    """metav1.LabelSelector, as far as the chart uses it."""
    exact = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return exact and all(
        labels.get(term["key"]) in term["values"] for term in selector.get("matchExpressions", [])
    )


def verifier(helm: Helm, *sets: str) -> tuple[Json, Json]:
    """The spec of the CronJob's Job, and its container."""
    (cronjob,) = of_kind(helm.objects("full", *sets), "CronJob")
    job = cronjob["spec"]["jobTemplate"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    return job, container


def test_the_verifier_s_passes_are_incremental_and_sweep_once_a_day(helm: Helm) -> None:
    job, container = verifier(helm)
    assert "--mode incremental --full-every 24h" in " ".join(container["command"])
    assert not {"completionMode", "completions", "parallelism", "backoffLimitPerIndex"} & set(job)
    _, container = verifier(helm, 'verifier={"fullSweepEvery":"0"}')
    assert "--full-every 0" in " ".join(container["command"])


def test_shards_are_an_indexed_job_whose_pods_know_their_run(helm: Helm) -> None:
    job, container = verifier(helm, 'verifier={"shards":4,"rowsPerSecond":1000}')
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 4, 4)
    assert job["backoffLimitPerIndex"] > 0
    assert "backoffLimit" not in job  # it would end the Job before an index has had its tries
    assert "--shards 4" in " ".join(container["command"])
    assert "--mode incremental --full-every 24h" in " ".join(container["command"])
    environment = {entry["name"]: entry for entry in container["env"]}
    assert environment["VERIFIER_RUN_ID"]["valueFrom"] == {
        "fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/controller-uid']"}
    }
    assert environment["VERIFIER_ROWS_PER_SECOND"]["value"] == "250"


def test_the_limit_of_rows_is_the_admin_job_s_too(helm: Helm) -> None:
    for sets, expected in (((), None), (('verifier={"rowsPerSecond":1000}',), "1000")):
        (api,) = [
            i for i in of_kind(helm.objects("full", *sets), "Deployment") if i["metadata"]["name"] == "api"
        ]
        (container,) = api["spec"]["template"]["spec"]["containers"]
        found = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert found.get("VERIFIER_ROWS_PER_SECOND") == expected


def test_crds_and_policies_are_those_of_the_repository(helm: Helm) -> None:
    sources = [
        item
        for path in (ROOT / "crds").glob("*.yaml")
        for item in yaml.safe_load_all(path.read_text())
        if item
    ]
    kinds = {item["kind"] for item in sources}
    made = of_kind(helm.objects("default"), *kinds)
    for crd in of_kind(made, "CustomResourceDefinition"):
        assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert by_identity(made) == by_identity(sources)
    assert not of_kind(
        helm.objects("default", 'crds={"enabled":false}', 'admission={"enabled":false}'), *kinds
    )
    unkept = of_kind(helm.objects("default", 'crds={"keep":false}'), "CustomResourceDefinition")
    assert "annotations" not in unkept[0]["metadata"]


def test_drain_may_end_every_kind_of_ours_and_nothing_else(helm: Helm) -> None:
    objects = helm.objects("default")
    plurals = [item["spec"]["names"]["plural"] for item in of_kind(objects, "CustomResourceDefinition")]
    role = next(i for i in of_kind(objects, "ClusterRole") if i["metadata"]["name"] == "shadowfault-drain")
    (rule,) = role["rules"]
    assert rule["apiGroups"] == ["chaos.shadowfault.dev"]
    assert sorted(rule["resources"]) == sorted(plurals)
    assert sorted(rule["verbs"]) == ["delete", "list", "patch"]


def test_plain_manifests_install_the_same(helm: Helm) -> None:
    """But for what only helm can run: its hooks; and the namespaces, which it does not create."""
    plain = subprocess.run(
        ["kubectl", "kustomize", str(ROOT / "deploy")], capture_output=True, text=True, check=True
    ).stdout
    wanted = [
        item
        for item in helm.objects("default", 'allowedNamespaces=["staging"]')
        if "helm.sh/hook" not in item["metadata"].get("annotations", {})
        and not item["metadata"]["name"].startswith("shadowfault-drain")
    ]
    got = [item for item in yaml.safe_load_all(plain) if item["kind"] != "Namespace"]
    assert by_identity(map(without_helm, got)) == by_identity(map(without_helm, wanted))


def without_helm(item: Json) -> Json:
    """Without labels and annotations that say who installed it, and settings that are the defaults."""
    item["metadata"].pop("labels", None)
    item["metadata"].pop("annotations", None)
    if item["kind"] == "Deployment":
        item["spec"]["template"]["metadata"].pop("labels")
        for container in item["spec"]["template"]["spec"]["containers"]:
            optional = {"LOG_LEVEL", "SHADOWFAULT_WORKERS", "SHADOWFAULT_RESYNC_SECONDS"}
            container["env"] = sorted(
                (e for e in container["env"] if e["name"] not in optional), key=lambda e: str(e["name"])
            )
    return dict(unfolded(item))


def unfolded(value: Any) -> Any:
    """Without the line breaks inside an expression: kustomize folds them anew, and CEL does not read them."""
    match value:
        case str():
            return " ".join(value.split())
        case list():
            return [unfolded(item) for item in value]
        case dict():
            return {key: unfolded(item) for key, item in value.items()}
        case _:
            return value


def by_identity(objects: Iterable[Json]) -> dict[tuple[str, str | None, str], Json]:
    return {
        (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]): item for item in objects
    }


def test_kustomize_lists_every_crd() -> None:
    listed = yaml.safe_load((ROOT / "crds" / "Kustomization").read_text())["resources"]
    assert sorted(listed) == sorted(path.name for path in (ROOT / "crds").glob("*.yaml"))
