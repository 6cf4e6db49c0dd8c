"""Every rule of the CustomResourceDefinition on the real API server: what it accepts and what it refuses."""

from __future__ import annotations

import copy
import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from shadowfault_operator.model import Injection, OriginalEntry, Phase, Status, parse_status, status_document
from shadowfault_testing.admission import CRDS, MANIFESTS, ApiServer
from shadowfault_testing.api import eventually, experiments
from shadowfault_testing.objects import experiment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shadowfault_cluster import Cluster

pytestmark = pytest.mark.cluster

FROZEN = "cannot be changed: delete the experiment and create a new one"


@pytest.fixture(scope="module")
def namespace(server: ApiServer) -> str:
    return server.new_namespace("crd")


def with_spec(**changes: Any) -> dict[str, Any]:
    """A sound experiment with these fields of its spec replaced; None leaves a field out."""
    body = experiment("rules")
    spec = {"targetRef": {"name": "api"}, "rate": 0.1, "duration": "15m"} | changes
    body["spec"] = {field: value for field, value in spec.items() if value is not None}
    return body


def with_target(**changes: Any) -> dict[str, Any]:
    return with_spec(targetRef={"name": "api"} | changes)


NAME_RULE = 'must be the name of a Deployment: lower case letters, digits, "-" and "."'
CONTAINER_RULE = 'must be the name of a container: lower case letters, digits and "-"'
RATE_RULE = "must be above 0 and at most 1, such as 0.1 for 10 %; to inject nothing, set suspend to true"
SEED_RULE = "must have 1 to 64 characters out of letters, digits and - . _ : @ / + ="
FORM_RULE = "must be whole hours, minutes and seconds in this order, such as 15m, 1h30m or 90s"
CAP_RULE = "must be between 1s and 4h; run a longer test as several experiments"

RATIO_RULE = "must be between 0 and 1, such as 0.05 for 5 %"
TWICE_RULE = "has a limit for a condition that it disables: leave out the one or the other"

ACCEPTED = [
    with_spec(),
    *(with_spec(rate=rate) for rate in (1, 1.0, 0.1, 0.000001)),
    *(with_spec(duration=text) for text in ("1s", "90s", "15m", "1h30m", "4h", "3h59m60s", "240m", "14400s")),
    *(with_spec(scope=scope) for scope in ("shadow_write_only", "all_writes", "reads")),
    *(with_spec(seed=seed) for seed in ("a", "my-test-run-123", "CI/run:7@main+2=x_y.z", "x" * 64)),
    *(with_spec(suspend=suspend) for suspend in (True, False)),
    *(with_spec(ttlSecondsAfterFinished=seconds) for seconds in (0, 2**31 - 1)),
    *(with_target(name=name) for name in ("a", "api", "api-v2", "api.v2", "0", "x" * 253)),
    *(with_target(container=name) for name in ("a", "api-1", "x" * 63)),
    with_target(kind="Deployment"),
    *(
        with_spec(stopConditions=conditions)
        for conditions in (
            {},
            {
                "primaryErrorRatio": 0,
                "minimumRequests": 1,
                "unexplainedDiscrepancies": 0,
                "shadowFailures": 0,
            },
            {"primaryErrorRatio": 1, "shadowFailures": 10**9},
            {"primaryErrorRatio": 0.1, "disabled": ["unexplainedDiscrepancies", "shadowFailures"]},
            {"minimumRequests": 5, "disabled": ["primaryErrorRatio"]},
        )
    ),
]
REFUSED = [
    *((with_spec(rate=rate), "spec.rate", RATE_RULE) for rate in (0, -0.1, 1.01, 5, 100)),
    (with_spec(rate=None), "spec.rate", "Required value"),
    (with_spec(rate="0.1"), "spec.rate", "must be of type number"),
    *(
        (with_spec(duration=text), "spec.duration", FORM_RULE)
        for text in ("", "15", "15 m", "m", "-15m", "1.5h", "1d", "30m1h", "500ms", "forever", "PT15M", "15M")
    ),
    *((with_spec(duration=t), "spec.duration", CAP_RULE) for t in ("0s", "0h0m0s", "4h1s", "241m", "99h")),
    (with_spec(duration=None), "spec.duration", "Required value"),
    (with_spec(duration=900), "spec.duration", "must be of type string"),
    (with_spec(duration="1h1m1s" * 3), "spec.duration", "may not be more than 16 bytes"),
    *((with_spec(scope=s), "spec.scope", "supported values") for s in ("", "primary", "READS", "everything")),
    *((with_spec(seed=seed), "spec.seed", SEED_RULE) for seed in ("", "a b", "$(HOME)", "a\n", "ä", "a;b")),
    (with_spec(seed="x" * 65), "spec.seed", "may not be more than 64 bytes"),
    (with_spec(suspend="yes"), "spec.suspend", "must be of type boolean"),
    (with_spec(ttlSecondsAfterFinished=-1), "spec.ttlSecondsAfterFinished", "greater than or equal to 0"),
    (with_spec(ttlSecondsAfterFinished=0.5), "spec.ttlSecondsAfterFinished", "must be of type integer"),
    (with_spec(ttlSecondsAfterFinished=2**31), "spec.ttlSecondsAfterFinished", "less than or equal to"),
    (with_spec(targetRef=None), "spec.targetRef", "Required value"),
    (with_spec(targetRef={}), "spec.targetRef.name", "Required value"),
    *((with_target(name=n), "spec.targetRef.name", NAME_RULE) for n in ("", "A", "-a", "a-", "a_b", "a..b")),
    (with_target(name="x" * 254), "spec.targetRef.name", "may not be more than 253 bytes"),
    *(
        (with_target(container=n), "spec.targetRef.container", CONTAINER_RULE)
        for n in ("", "API", "-a", "a-", "a_b", "a.b")
    ),
    (with_target(container="x" * 64), "spec.targetRef.container", "may not be more than 63 bytes"),
    (with_target(kind=""), "spec.targetRef.kind", 'supported values: "Deployment"'),
    (with_target(kind="StatefulSet"), "spec.targetRef.kind", 'supported values: "Deployment"'),
    *(
        (with_spec(stopConditions={"primaryErrorRatio": ratio}), "spec.stopConditions.primaryErrorRatio", m)
        for ratio, m in ((-0.1, RATIO_RULE), (1.1, RATIO_RULE), (5, RATIO_RULE), ("5%", "of type number"))
    ),
    *(
        (with_spec(stopConditions={field: value}), f"spec.stopConditions.{field}", "greater than or equal to")
        for field, value in (("minimumRequests", 0), ("unexplainedDiscrepancies", -1), ("shadowFailures", -1))
    ),
    (
        with_spec(stopConditions={"disabled": ["everything"]}),
        "spec.stopConditions.disabled[0]",
        'supported values: "primaryErrorRatio", "unexplainedDiscrepancies", "shadowFailures"',
    ),
    *(
        (with_spec(stopConditions={name: 1, "disabled": [name]}), "spec.stopConditions", TWICE_RULE)
        for name in ("primaryErrorRatio", "unexplainedDiscrepancies", "shadowFailures")
    ),
]  # fmt: skip


@pytest.mark.parametrize("body", ACCEPTED, ids=lambda body: str(body["spec"])[:90])
def test_accepted(server: ApiServer, namespace: str, body: dict[str, Any]) -> None:
    verdict = server.would_create(experiments(namespace), body)
    assert verdict.accepted, str(verdict)


@pytest.mark.parametrize(
    ("body", "field", "message"), REFUSED, ids=[f"{str(body['spec'])[:90]}" for body, _, _ in REFUSED]
)
def test_refused_with_field_and_advice(
    server: ApiServer, namespace: str, body: dict[str, Any], field: str, message: str
) -> None:
    verdict = server.would_create(experiments(namespace), body)
    assert verdict.status == 422, str(verdict)
    causes = {cause["field"]: cause["message"] for cause in verdict.body["details"]["causes"]}
    assert message in causes.get(field, ""), causes


def test_no_spec_at_all_is_refused(server: ApiServer, namespace: str) -> None:
    body = experiment()
    del body["spec"]
    verdict = server.would_create(experiments(namespace), body)
    assert verdict.status == 422
    assert "spec is required, with targetRef, rate and duration" in verdict.message


def test_defaults_are_the_safe_ones(server: ApiServer, namespace: str) -> None:
    assert server.would_create(experiments(namespace), with_spec()).body["spec"] == {
        "targetRef": {"kind": "Deployment", "name": "api"},
        "rate": 0.1,
        "duration": "15m",
        "scope": "shadow_write_only",
        "suspend": False,
        "dryRun": False,
    }


def test_a_misspelt_field_is_refused_when_asked_as_kubectl_asks(server: ApiServer, namespace: str) -> None:
    verdict = server.ask(
        "POST", experiments(namespace), with_spec(sed="x"), dryRun="All", fieldValidation="Strict"
    )
    assert verdict.status == 400
    assert 'unknown field "spec.sed"' in verdict.message


# What only suspend may do


FULL = {
    "targetRef": {"kind": "Deployment", "name": "api", "container": "api"},
    "rate": 0.1,
    "seed": "first",
    "scope": "shadow_write_only",
    "duration": "15m",
    "suspend": False,
    "stopConditions": {"primaryErrorRatio": 0.1, "disabled": ["unexplainedDiscrepancies"]},
    "dryRun": False,
}
CHANGES: list[tuple[dict[str, Any], str, str]] = [
    ({"rate": 0.2}, "spec.rate", FROZEN),
    ({"seed": "second"}, "spec.seed", FROZEN),
    ({"seed": None}, "spec", "seed cannot be added or removed"),
    ({"scope": "reads"}, "spec.scope", FROZEN),
    ({"duration": "10m"}, "spec.duration", FROZEN),
    ({"duration": "900s"}, "spec.duration", FROZEN),
    ({"dryRun": True}, "spec.dryRun", FROZEN),
    ({"targetRef": {"name": "other"}}, "spec.targetRef.name", FROZEN),
    ({"targetRef": {"container": "other"}}, "spec.targetRef.container", FROZEN),
    ({"targetRef": {"container": None}}, "spec.targetRef", "container cannot be added or removed"),
    ({"stopConditions": {"primaryErrorRatio": 0.9}}, "spec.stopConditions", FROZEN),
    ({"stopConditions": {"shadowFailures": 9}}, "spec.stopConditions", FROZEN),
    ({"stopConditions": None}, "spec", "stopConditions cannot be added or removed"),
]


@pytest.fixture(scope="module")
def full(server: ApiServer, namespace: str) -> str:
    """Path of an experiment with every field set."""
    verdict = server.create(experiments(namespace), experiment("full") | {"spec": FULL})
    assert verdict.accepted, str(verdict)
    return experiments(namespace, "full")


@pytest.fixture(scope="module")
def bare(server: ApiServer, namespace: str) -> str:
    """Path of an experiment with only the required fields set."""
    verdict = server.create(experiments(namespace), with_spec() | {"metadata": {"name": "bare"}})
    assert verdict.accepted, str(verdict)
    return experiments(namespace, "bare")


@pytest.mark.parametrize(
    ("change", "field", "message"), CHANGES, ids=[str(change) for change, _, _ in CHANGES]
)
def test_the_spec_cannot_be_changed(
    server: ApiServer, full: str, change: dict[str, Any], field: str, message: str
) -> None:
    verdict = server.merge(full, {"spec": change})
    assert verdict.status == 422, str(verdict)
    causes = {cause["field"]: cause["message"] for cause in verdict.body["details"]["causes"]}
    assert message in causes.get(field, ""), causes
    assert server.get(full)["spec"] == FULL


@pytest.mark.parametrize(
    "change", [{"seed": "late"}, {"targetRef": {"container": "late"}}, {"stopConditions": {}}], ids=str
)
def test_what_was_left_out_cannot_be_added(server: ApiServer, bare: str, change: dict[str, Any]) -> None:
    verdict = server.merge(bare, {"spec": change})
    assert verdict.status == 422
    assert "cannot be added or removed: delete the experiment and create a new one" in verdict.message


def test_suspend_can_be_changed_to_and_fro(server: ApiServer, full: str) -> None:
    for suspend in (True, False):
        assert server.merge(full, {"spec": {"suspend": suspend}}).body["spec"] == FULL | {"suspend": suspend}


def test_the_time_to_live_can_be_set_changed_and_removed(server: ApiServer, bare: str) -> None:
    for seconds in (60, 0, None):
        changed = server.merge(bare, {"spec": {"ttlSecondsAfterFinished": seconds}})
        assert changed.body["spec"].get("ttlSecondsAfterFinished") == seconds


def test_no_field_of_the_spec_was_forgotten() -> None:
    """A field added to the spec needs a rule that freezes it, and a case above."""
    fields = schema()["properties"]["spec"]["properties"]
    changed = {field for change, _, _ in CHANGES for field in change}
    assert set(fields) - {"suspend", "ttlSecondsAfterFinished"} == changed
    target = {field for change, _, _ in CHANGES for field in change.get("targetRef", {})}
    assert set(fields["targetRef"]["properties"]) - {"kind"} == target  # kind has one value only


# Status


def test_the_operators_status_is_kept_as_it_is_written(server: ApiServer, bare: str) -> None:
    """Nothing that the operator writes is pruned or refused; entries from other sources are kept whole."""
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    value_from = {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}
    unheard_of = {"fileKeyRef": {"path": "/env", "key": "CHAOS_SEED", "volumeName": "v"}}
    written = Status(
        phase=Phase.RUNNING,
        reason="Injected",
        message="the chaos environment is in the target",
        observed_generation=1,
        seed="generated",
        effective_rate=0.05,
        started_at=now,
        expires_at=now + timedelta(minutes=15),
        finished_at=now + timedelta(minutes=16),
        injection=Injection(
            target_name="api",
            target_uid="7b1c9d3e",
            target_generation=7,
            restarted_at="2026-01-30T00:00:00Z",
            container="api",
            environment={"CHAOS_ENABLED": "true", "CHAOS_FAIL_RATE": "0.1"},
            originals=(
                OriginalEntry(
                    {"name": "CHAOS_ENABLED", "value": "false"}, frozenset({"kubectl-set", "helm"})
                ),
                OriginalEntry({"name": "CHAOS_SCOPE", "valueFrom": value_from}),
                OriginalEntry({"name": "CHAOS_SEED", "valueFrom": unheard_of}),
            ),
        ),
        unexplained_baseline=3,
        preview={
            "target": {"kind": "Deployment", "name": "api"},
            "container": "api",
            "env": [{"name": "CHAOS_ENABLED", "value": "true"}],
            "replaces": ["CHAOS_ENABLED"],
            "refusals": [{"reason": "TargetBusy", "message": "another has it"}],
        },
        created_by="alice",
        transitions=({"phase": "Running", "reason": "Injected", "time": "2026-01-31T12:00:00Z"},),
        conditions=tuple(
            {
                "type": kind,
                "status": "True",
                "reason": "Injected",
                "message": "",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-31T12:00:00Z",
            }
            for kind in ("Ready", "Reconciling", "Stalled", "Injected", "Recovered", "Refused")
        ),
    )
    verdict = server.merge(f"{bare}/status", {"status": status_document(written)})
    assert verdict.accepted, str(verdict)
    assert parse_status(server.get(bare)["status"]) == written


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_of_the_operator_is_known(server: ApiServer, bare: str, phase: Phase) -> None:
    assert server.merge(f"{bare}/status", {"status": {"phase": phase}}).accepted


def test_an_unknown_phase_is_refused(server: ApiServer, bare: str) -> None:
    verdict = server.merge(f"{bare}/status", {"status": {"phase": "Odd"}})
    assert verdict.status == 422
    assert "status.phase" in verdict.message


def test_status_and_spec_are_written_apart(server: ApiServer, full: str) -> None:
    server.merge(full, {"status": {"phase": "Finished"}})
    assert "phase" not in server.get(full).get("status", {})
    server.merge(f"{full}/status", {"spec": {"suspend": True}, "status": {"reason": "Kept"}})
    kept = server.get(full)
    assert (kept["spec"]["suspend"], kept["status"]["reason"]) == (False, "Kept")


def test_conditions_are_merged_by_type(server: ApiServer, namespace: str) -> None:
    verdict = server.create(experiments(namespace), with_spec() | {"metadata": {"name": "conditions"}})
    path = f"{experiments(namespace, 'conditions')}/status"
    assert verdict.accepted, str(verdict)
    condition = {"status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-31T12:00:00Z"}

    def write(*kinds: str) -> int:
        listed = [condition | {"type": kind} for kind in kinds]
        return server.merge(path, {"status": {"conditions": listed}}).status

    assert write("Ready", "Stalled") == 200
    assert write("Ready", "Ready") == 422
    assert server.merge(path, {"status": {"conditions": [{"type": "Ready", "status": "Yes"}]}}).status == 422


# What people see


def table(server: ApiServer, path: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Columns, and the one row by column name, as kubectl asks for them."""
    headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    body = server._http.get(path, headers=headers).json()
    columns = body["columnDefinitions"]
    return columns, dict(zip([c["name"] for c in columns], body["rows"][0]["cells"], strict=True))


def test_printer_columns(server: ApiServer, namespace: str) -> None:
    created = server.create(experiments(namespace), with_spec(rate=0.25) | {"metadata": {"name": "printed"}})
    path = experiments(namespace, "printed")
    status = {
        "phase": "Running",
        "reason": "Injected",
        "expiresAt": "2999-01-31T12:15:00Z",
        "seed": "abc",
        "effectiveRate": 0.05,
        "verdict": {"result": "Passed", "reason": "AllExplained", "time": "2026-03-01T12:00:00Z"},
    }
    assert server.merge(f"{path}/status", {"status": status}).accepted
    columns, row = table(server, path)
    narrow = [column["name"] for column in columns if not column["priority"]]
    assert narrow == ["Name", "Phase", "Reason", "Verdict", "Target", "Rate", "Scope", "Expires", "Age"]
    age = row.pop("Age")
    assert age.endswith("s")
    assert row == {
        "Name": "printed",
        "Phase": "Running",
        "Reason": "Injected",
        "Verdict": "Passed",
        "Target": "api",
        "Rate": 0.25,
        "Scope": "shadow_write_only",
        "Expires": "2999-01-31T12:15:00Z",
        "Effective rate": 0.05,
        "Seed": "abc",
        "UID": created.body["metadata"]["uid"],
    }


def test_short_names_and_categories(server: ApiServer) -> None:
    resources = server.get("/apis/chaos.shadowfault.dev/v1alpha1")["resources"]
    (resource,) = [item for item in resources if item["name"] == "chaosexperiments"]
    assert set(resource["shortNames"]) == {"chaosexp", "cexp"}
    assert resource["categories"] == ["chaos"]
    assert resource["namespaced"] is True


@pytest.mark.usefixtures("server")
def test_kubectl_explains_every_field_of_the_spec(cluster: Cluster) -> None:
    def undescribed(node: dict[str, Any], path: str) -> Iterator[str]:
        for name, child in node.get("properties", {}).items():
            if "description" not in child:
                yield f"{path}.{name}"
            yield from undescribed(child, f"{path}.{name}")

    assert list(undescribed(schema()["properties"]["spec"], "spec")) == []
    explained = cluster.kubectl("explain", "chaosexperiment.spec.duration").stdout
    assert "1s to 4h" in explained


# An object that is invalid, because it is older than a rule, can still be deleted


def crd() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((MANIFESTS / "chaosexperiments.yaml").read_text())
    return document


def schema() -> dict[str, Any]:
    (version,) = crd()["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


SOUND = experiment()["spec"]
INVALID: dict[str, dict[str, Any]] = {
    "no-spec": {},
    "empty-spec": {"spec": {}},
    "no-rate": {"spec": {field: value for field, value in SOUND.items() if field != "rate"}},
    "rate": {"spec": SOUND | {"rate": 5}},
    "duration": {"spec": SOUND | {"duration": "forever"}},
    "long-duration": {"spec": SOUND | {"duration": "9" * 40}},
    "scope": {"spec": SOUND | {"scope": "everything"}},
    "seed": {"spec": SOUND | {"seed": "$(HOME)"}},
    "target": {"spec": SOUND | {"targetRef": {"name": "API"}}},
    "no-target": {"spec": SOUND | {"targetRef": {}}},
    "status": {"spec": SOUND, "status": {"phase": "Odd", "conditions": [{"type": "x"}]}},
}


@pytest.fixture(scope="module")
def older(server: ApiServer) -> Iterator[str]:
    """A twin of the kind, in a group of its own, with invalid objects from a time when it had no rules."""
    group = f"t{secrets.token_hex(4)}.example.com"
    strict = crd()
    strict["metadata"] = {"name": f"chaosexperiments.{group}"}
    strict["spec"]["group"] = group
    del strict["spec"]["names"]["shortNames"], strict["spec"]["names"]["categories"]
    loose = copy.deepcopy(strict)
    loose["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
    }
    assert server.create(CRDS, loose).accepted
    path = f"/apis/{group}/v1alpha1/namespaces/default/chaosexperiments"

    def body(name: str, content: dict[str, Any]) -> dict[str, Any]:
        metadata = {"name": name, "finalizers": ["chaos.shadowfault.dev/recovery"]}
        return {"apiVersion": f"{group}/v1alpha1", "kind": "ChaosExperiment", "metadata": metadata, **content}

    eventually("the kind to be served", lambda: server.would_create(path, body("probe", {})).accepted)
    for name, content in INVALID.items():
        assert server.create(path, body(name, content)).accepted
        assert server.create(path, body(f"{name}-to-suspend", content)).accepted
        if "status" in content:
            assert server.merge(f"{path}/{name}/status", {"status": content["status"]}).accepted
    assert server.merge(
        f"{CRDS}/chaosexperiments.{group}", {"spec": {"versions": strict["spec"]["versions"]}}
    ).accepted
    eventually("the rules to be in force", lambda: server.would_create(path, body("probe", {})).status == 422)
    yield path
    for name in INVALID:
        server.merge(f"{path}/{name}-to-suspend", {"metadata": {"finalizers": None}})
    server.ask("DELETE", f"{CRDS}/chaosexperiments.{group}")


@pytest.mark.parametrize("name", list(INVALID))
def test_an_invalid_object_can_be_ended_and_deleted(server: ApiServer, older: str, name: str) -> None:
    path = f"{older}/{name}"
    finalizers = server.get(path)["metadata"]["finalizers"]
    assert server.merge(path, {"metadata": {"labels": {"a": "b"}}}).accepted
    assert server.merge(path, {"metadata": {"finalizers": [*finalizers, "example.com/other"]}}).accepted
    recovering = {"phase": "Recovering", "conditions": None}
    assert server.merge(f"{path}/status", {"status": recovering}).accepted
    assert server.ask("DELETE", path).accepted
    assert server.merge(path, {"metadata": {"finalizers": None}}).accepted
    assert server.ask("GET", path).status == 404


@pytest.mark.parametrize("name", ["rate", "duration", "long-duration", "scope", "seed", "target"])
def test_an_invalid_object_can_be_suspended(server: ApiServer, older: str, name: str) -> None:
    verdict = server.merge(f"{older}/{name}-to-suspend", {"spec": {"suspend": True}})
    assert verdict.accepted, str(verdict)
    assert verdict.body["spec"]["suspend"] is True


def test_an_invalid_field_cannot_be_changed_to_another_invalid_value(server: ApiServer, older: str) -> None:
    """The rules are in force there."""
    verdict = server.merge(f"{older}/rate-to-suspend", {"spec": {"rate": 6}})
    assert verdict.status == 422
    assert RATE_RULE in verdict.message
