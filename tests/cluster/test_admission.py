"""Where an experiment may be created, by whom, and what always passes; on the real API server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from shadowfault_testing.admission import ALLOWED, NAMESPACES, ApiServer, Verdict
from shadowfault_testing.api import eventually, experiments, schedules
from shadowfault_testing.objects import experiment, schedule

if TYPE_CHECKING:
    from shadowfault_cluster import Cluster

pytestmark = pytest.mark.cluster

CASES = yaml.safe_load((Path(__file__).parents[1] / "data" / "production_names.yaml").read_text())["cases"]
AUTHOR = "alice"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


@pytest.fixture(scope="module")
def staging(server: ApiServer) -> str:
    """A namespace that has opted in."""
    return server.new_namespace("staging")


def aim(server: ApiServer, namespace: str, **spec: Any) -> Verdict:
    """Ask for an experiment there, without leaving one."""
    return server.would_create(experiments(namespace), experiment(**spec))


def refused(verdict: Verdict, *words: str) -> bool:
    return verdict.status == 403 and all(word in verdict.message for word in words)


# Opting in


def test_a_namespace_that_has_opted_in_takes_experiments(server: ApiServer, staging: str) -> None:
    verdict = aim(server, staging)
    assert verdict.accepted, str(verdict)
    assert verdict.warnings == ()


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"chaos.shadowfault.dev/allowed": "false"},
        {"chaos.shadowfault.dev/allowed": "True"},
        {"chaos.shadowfault.dev/allowed": ""},
        {"shadowfault.dev/allowed": "true"},
    ],
    ids=str,
)
def test_a_namespace_that_has_not_is_refused_with_the_way_to_do_it(
    server: ApiServer, labels: dict[str, str]
) -> None:
    namespace = server.new_namespace("staging", labels)
    command = f"kubectl label namespace {namespace} chaos.shadowfault.dev/allowed=true"
    assert refused(aim(server, namespace), "has not opted in", command)


# Production


@pytest.mark.parametrize("side", ["first", "last"])
@pytest.mark.parametrize(
    "case", [case for case in CASES if "labels" not in case], ids=lambda case: case["name"]
)
def test_production_by_name(server: ApiServer, case: dict[str, Any], side: str) -> None:
    """Other tests may use the names as they are, so a neutral word stands before or after them."""
    prefix, suffix = (case["name"], "") if side == "first" else ("t", f"-{case['name']}")
    namespace = server.new_namespace(prefix, suffix=suffix)
    verdict = aim(server, namespace)
    if case["production"]:
        assert refused(verdict, f"namespace {namespace} is production by its name"), str(verdict)
    else:
        assert verdict.accepted, str(verdict)


@pytest.mark.parametrize("case", [case for case in CASES if "labels" in case], ids=str)
def test_production_by_label(server: ApiServer, case: dict[str, Any]) -> None:
    namespace = server.new_namespace(case["name"], ALLOWED | case["labels"])
    verdict = aim(server, namespace)
    if case["production"]:
        assert refused(verdict, f"namespace {namespace} is production by its "), str(verdict)
    else:
        assert verdict.accepted, str(verdict)


def test_the_marking_labels_are_named(server: ApiServer) -> None:
    namespace = server.new_namespace(
        "shop", ALLOWED | {"environment": "Prod", "tier": "live", "team": "prod"}
    )
    verdict = aim(server, namespace)
    assert refused(verdict, "environment=Prod", "tier=live"), str(verdict)
    assert "team" not in verdict.message


def test_production_stays_out_without_an_opt_in_as_well(server: ApiServer) -> None:
    assert refused(aim(server, server.new_namespace("prod", {})), "is production by its name")


# The author


@pytest.fixture(scope="module")
def authors(server: ApiServer, staging: str) -> str:
    """A namespace where AUTHOR may create experiments, and patch the Deployment `own` but no other."""
    rules = [
        {
            "apiGroups": ["chaos.shadowfault.dev"],
            "resources": ["chaosexperiments", "chaosschedules"],
            "verbs": ["create", "get", "patch"],
        },
        {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["own"], "verbs": ["patch"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "update", "create"]},
    ]
    role = {"metadata": {"name": "author"}, "rules": rules}
    binding = {
        "metadata": {"name": "author"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "author"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": AUTHOR}],
    }
    assert server.create(f"{RBAC}/namespaces/{staging}/roles", role).accepted
    assert server.create(f"{RBAC}/namespaces/{staging}/rolebindings", binding).accepted
    eventually("the role to be in force", lambda: _may_patch(server, staging, "own"))
    return staging


def _may_patch(server: ApiServer, namespace: str, deployment: str) -> bool:
    attributes = {
        "namespace": namespace,
        "group": "apps",
        "resource": "deployments",
        "verb": "patch",
        "name": deployment,
    }
    review = {"spec": {"user": AUTHOR, "resourceAttributes": attributes}}
    verdict = server.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(verdict.body["status"]["allowed"])


def test_who_may_patch_the_deployment_may_aim_at_it(server: ApiServer, authors: str) -> None:
    verdict = server.would_create(experiments(authors), experiment(target="own"), as_user=AUTHOR)
    assert verdict.accepted, str(verdict)


def test_who_may_not_patch_the_deployment_may_not_aim_at_it(server: ApiServer, authors: str) -> None:
    verdict = server.would_create(experiments(authors), experiment(target="foreign"), as_user=AUTHOR)
    wanted = f"{AUTHOR} may not patch Deployment foreign in namespace {authors}"
    assert refused(verdict, wanted, "ask for the verb patch on deployments.apps"), str(verdict)


def test_who_may_not_patch_it_may_not_take_it_out_of_suspension(server: ApiServer, authors: str) -> None:
    made = server.create(experiments(authors), experiment("resumed", target="foreign", suspend=True))
    assert made.accepted, str(made)
    path = experiments(authors, "resumed")
    assert refused(
        server.merge(path, {"spec": {"suspend": False}}, as_user=AUTHOR), "may not patch Deployment"
    )
    assert server.merge(path, {"spec": {"suspend": False}}).accepted
    assert server.merge(path, {"spec": {"suspend": True}}, as_user=AUTHOR).accepted


def test_the_author_goes_into_the_audit_log(cluster: Cluster, server: ApiServer, authors: str) -> None:
    """Whether the experiment is taken or not, and who may not patch the target is named as well."""
    for target in ("own", "foreign"):
        server.would_create(experiments(authors), experiment(target=target), as_user=AUTHOR)
        server.would_create(
            schedules(authors), schedule(spec={"targetRef": {"name": target}}), as_user=AUTHOR
        )
    log = cluster.directory / "logs" / "audit.log"
    notes = [json.loads(line).get("annotations", {}) for line in log.read_text().splitlines()]
    for target in ("own", "foreign"):
        at = f"at Deployment {authors}/{target}"
        said = {(key, note[key]) for note in notes for key in note}
        assert ("shadowfault-experiments/author", f"{AUTHOR} aims CREATE {at}") in said
        assert ("shadowfault-schedules/author", f"{AUTHOR} aims a schedule (CREATE) {at}") in said


# Schedules


def test_a_schedule_is_created_only_where_an_experiment_may_be(server: ApiServer, staging: str) -> None:
    def create(namespace: str) -> Verdict:
        return server.would_create(schedules(namespace), schedule())

    assert create(staging).accepted
    assert refused(create(server.new_namespace("staging", {})), "has not opted in")
    assert refused(create(server.new_namespace("prod")), "is production by its name")
    marked = server.new_namespace("shop", ALLOWED | {"environment": "production"})
    assert refused(create(marked), "is production by its label environment=production")


def test_who_may_not_patch_the_deployment_may_not_schedule_it(server: ApiServer, authors: str) -> None:
    def create(target: str) -> Verdict:
        body = schedule(spec={"targetRef": {"name": target}})
        return server.would_create(schedules(authors), body, as_user=AUTHOR)

    assert create("own").accepted
    assert refused(create("foreign"), f"{AUTHOR} may not patch Deployment foreign in namespace {authors}")


def test_nor_turn_a_schedule_to_it(server: ApiServer, authors: str) -> None:
    body = schedule("turned", spec={"targetRef": {"name": "own"}})
    assert server.create(schedules(authors), body, as_user=AUTHOR).accepted
    path = schedules(authors, "turned")

    def turn(target: str, **fields: Any) -> Verdict:
        template = {"spec": {"targetRef": {"name": target}}}
        return server.merge(path, {"spec": {"experimentTemplate": template, **fields}}, as_user=AUTHOR)

    assert refused(turn("foreign"), "may not patch Deployment foreign")
    # Not by way of a suspension either.
    assert turn("foreign", suspend=True).accepted
    assert refused(server.merge(path, {"spec": {"suspend": False}}, as_user=AUTHOR), "may not patch")
    assert turn("own", suspend=False).accepted


def test_whatever_a_namespace_became_its_schedule_can_be_stopped(server: ApiServer) -> None:
    namespace = server.new_namespace("shop")
    assert server.create(schedules(namespace), schedule("left")).accepted
    marks = {"environment": "production", **dict.fromkeys(ALLOWED)}
    assert server.merge(f"{NAMESPACES}/{namespace}", {"metadata": {"labels": marks}}).accepted
    eventually("the mark to be seen", lambda: refused(aim(server, namespace), "is production by its label"))
    path = schedules(namespace, "left")
    assert refused(server.merge(path, {"spec": {"schedule": "0 * * * *"}}), "is production by its label")
    assert server.merge(path, {"metadata": {"labels": {"a": "b"}}}).accepted
    assert server.merge(f"{path}/status", {"status": {"observedGeneration": 1}}).accepted
    assert server.merge(path, {"spec": {"suspend": True}}).accepted
    assert refused(server.merge(path, {"spec": {"suspend": False}}), "is production by its label")
    assert server.ask("DELETE", path).accepted


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (schedule(cron="every day"), "must be cron's five fields"),
        (schedule(cron="@daily"), "must be cron's five fields"),
        (schedule("x" * 53), "must have at most 52 characters"),
        (schedule(concurrencyPolicy="Allow"), "Unsupported value"),
        (schedule(startingDeadlineSeconds=1), "greater than or equal to 10"),
        (schedule(spec={"rate": 2}), "must be above 0 and at most 1"),
        (schedule(spec={"duration": "5h"}), "must be between 1s and 4h"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_schema_refuses_with_advice(
    server: ApiServer, staging: str, body: dict[str, Any], words: str
) -> None:
    verdict = server.would_create(schedules(staging), body)
    assert verdict.status == 422
    assert words in verdict.message


# What always passes


@pytest.fixture
def turned(server: ApiServer) -> str:
    """Path of an experiment with a finalizer, in a namespace that became production after it was created."""
    namespace = server.new_namespace("shop")
    body = experiment("left")
    body["metadata"]["finalizers"] = ["chaos.shadowfault.dev/recovery"]
    made = server.create(experiments(namespace), body)
    assert made.accepted, str(made)
    marks = {"environment": "production", **dict.fromkeys(ALLOWED)}  # the opt-in withdrawn as well
    assert server.merge(f"{NAMESPACES}/{namespace}", {"metadata": {"labels": marks}}).accepted
    eventually("the mark to be seen", lambda: refused(aim(server, namespace), "is production by its label"))
    return experiments(namespace, "left")


def test_whatever_a_namespace_became_its_experiment_can_be_suspended(server: ApiServer, turned: str) -> None:
    assert server.merge(turned, {"spec": {"suspend": True}}).accepted


def test_and_not_be_resumed(server: ApiServer, turned: str) -> None:
    assert server.merge(turned, {"spec": {"suspend": True}}).accepted
    assert refused(server.merge(turned, {"spec": {"suspend": False}}), "is production by its label")
    assert server.get(turned)["spec"]["suspend"] is True


def test_and_its_metadata_and_status_be_written(server: ApiServer, turned: str) -> None:
    assert server.merge(turned, {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}}).accepted
    finalizers = ["chaos.shadowfault.dev/recovery", "example.com/other"]
    assert server.merge(turned, {"metadata": {"finalizers": finalizers}}).accepted
    assert server.merge(f"{turned}/status", {"status": {"phase": "Recovering"}}).accepted


def test_and_so_once_it_is_suspended(server: ApiServer, turned: str) -> None:
    assert server.merge(turned, {"spec": {"suspend": True}}).accepted
    assert server.merge(turned, {"metadata": {"labels": {"a": "b"}}}).accepted
    assert server.merge(turned, {"metadata": {"finalizers": None}}).accepted


def test_and_it_can_be_deleted(server: ApiServer, turned: str) -> None:
    assert server.ask("DELETE", turned).accepted
    assert server.merge(turned, {"metadata": {"finalizers": None}}).accepted
    assert server.ask("GET", turned).status == 404


def test_and_its_namespace_can_be_deleted(server: ApiServer, turned: str) -> None:
    namespace = turned.split("/")[5]
    assert server.merge(turned, {"metadata": {"finalizers": None}}).accepted
    assert server.ask("DELETE", f"{NAMESPACES}/{namespace}").accepted
    eventually("the experiment to go", lambda: server.ask("GET", turned).status == 404, seconds=60)


# Who created it

CREATED_BY = "chaos.shadowfault.dev/created-by"


def says(name: str, who: str) -> dict[str, Any]:
    body = experiment(name)
    body["metadata"]["annotations"] = {CREATED_BY: who}
    return body


@pytest.fixture(scope="module")
def me(server: ApiServer, staging: str) -> str:
    review = server.ask("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
    eventually(
        "the policy to be in force",
        lambda: not server.would_create(experiments(staging), says("probe", "mallory")).accepted,
    )
    return str(review.body["status"]["userInfo"]["username"])


def test_an_author_is_taken_by_their_own_name_only(server: ApiServer, staging: str, me: str) -> None:
    assert server.would_create(experiments(staging), says("signed", me)).accepted
    for other in ("alice", f"{me} ", me.upper()):
        assert refused(server.would_create(experiments(staging), says("signed", other)), f"must be {me}")


def test_who_created_it_stays_and_keeps_nothing_from_ending(server: ApiServer, staging: str, me: str) -> None:
    path = experiments(staging, "signed")
    assert server.create(experiments(staging), says("signed", me)).accepted
    for changed in ("alice", None):
        verdict = server.merge(path, {"metadata": {"annotations": {CREATED_BY: changed}}})
        assert refused(verdict, "stays as it is")
    for change in (
        {"spec": {"suspend": True}},
        {"metadata": {"finalizers": ["chaos.shadowfault.dev/recovery"]}},
        {"metadata": {"finalizers": None}},
    ):
        assert server.merge(path, change).accepted
    assert server.ask("DELETE", path).accepted


def test_nobody_can_sign_an_experiment_afterwards(server: ApiServer, staging: str, me: str) -> None:
    assert server.create(experiments(staging), experiment("unsigned")).accepted
    path = experiments(staging, "unsigned")
    assert refused(server.merge(path, {"metadata": {"annotations": {CREATED_BY: me}}}), "stays as it is")
    assert server.ask("DELETE", path).accepted


# Advice


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.25])
def test_a_modest_rate_is_taken_without_a_word(server: ApiServer, staging: str, rate: float) -> None:
    assert aim(server, staging, rate=rate).warnings == ()


@pytest.mark.parametrize("rate", [0.26, 0.5, 1])
def test_a_high_rate_is_taken_with_advice(server: ApiServer, staging: str, rate: float) -> None:
    verdict = aim(server, staging, rate=rate)
    assert verdict.accepted
    (warning,) = verdict.warnings
    assert f"rate {rate} is high: begin at 0.05 to 0.1 and raise it step by step" in warning


@pytest.mark.parametrize("scope", ["shadow_write_only", "all_writes"])
def test_a_scope_of_writes_is_taken_without_a_word(server: ApiServer, staging: str, scope: str) -> None:
    assert aim(server, staging, scope=scope).warnings == ()


def test_scope_reads_is_taken_with_advice(server: ApiServer, staging: str) -> None:
    verdict = aim(server, staging, scope="reads")
    assert verdict.accepted
    (warning,) = verdict.warnings
    assert "scope reads makes reads fail too" in warning


def test_kubectl_prints_the_advice(cluster: Cluster, staging: str) -> None:
    bodies = [
        experiment("advised", rate=0.9, scope="reads"),
        schedule("advised-too", spec={"rate": 0.8, "scope": "reads"}),
    ]
    result = cluster.kubectl(
        "create", "--dry-run=server", "-n", staging, "-f", "-", input=yaml.safe_dump_all(bodies)
    )
    assert result.stderr.count("Warning: ") == 4
    assert "rate 0.9 is high" in result.stderr
    assert "rate 0.8 of spec.experimentTemplate is high" in result.stderr


@pytest.mark.parametrize(
    ("spec", "advice"),
    [
        ({}, []),
        ({"rate": 0.26}, ["rate 0.26 of spec.experimentTemplate is high"]),
        ({"scope": "reads"}, ["scope reads of spec.experimentTemplate makes reads fail too"]),
    ],
    ids=["modest", "rate", "scope"],
)
def test_a_schedule_is_taken_with_advice_on_its_template(
    server: ApiServer, staging: str, spec: dict[str, Any], advice: list[str]
) -> None:
    verdict = server.would_create(schedules(staging), schedule(spec=spec))
    assert verdict.accepted, str(verdict)
    assert len(verdict.warnings) == len(advice)
    assert all(words in warning for words, warning in zip(advice, verdict.warnings, strict=True))


def test_a_schedule_is_advised_on_when_its_template_changes(server: ApiServer, staging: str) -> None:
    assert server.create(schedules(staging), schedule("advised")).accepted
    path = schedules(staging, "advised")
    high = server.merge(path, {"spec": {"experimentTemplate": {"spec": {"rate": 0.5}}}})
    assert high.accepted, str(high)
    (warning,) = high.warnings
    assert "rate 0.5 of spec.experimentTemplate is high" in warning
    other = server.merge(path, {"spec": {"suspend": True}})
    assert other.accepted, str(other)
    assert other.warnings == ()


# The policies as such

POLICIES = [
    "shadowfault-experiments",
    "shadowfault-schedules",
    "shadowfault-created-by",
    "shadowfault-deployments",
    "shadowfault-advice",
    "shadowfault-schedule-advice",
]


@pytest.mark.parametrize("name", POLICIES)
def test_the_api_server_finds_no_fault_with_a_policy(server: ApiServer, name: str) -> None:
    path = f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/{name}"

    def checked() -> dict[str, Any] | None:
        policy = server.get(path)
        status: dict[str, Any] = policy.get("status", {})
        return status if status.get("observedGeneration") == policy["metadata"]["generation"] else None

    assert eventually("its expressions to be checked", checked)["typeChecking"] == {}


def test_advice_never_refuses_and_nets_fail_closed(server: ApiServer) -> None:
    base = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
    policies = {item["metadata"]["name"]: item["spec"] for item in server.get(f"{base}ies")["items"]}
    bindings = {item["metadata"]["name"]: item["spec"] for item in server.get(f"{base}ybindings")["items"]}
    for name, policy, actions in (
        ("shadowfault-experiments", "Fail", ["Deny"]),
        ("shadowfault-schedules", "Fail", ["Deny"]),
        ("shadowfault-created-by", "Fail", ["Deny"]),
        ("shadowfault-deployments", "Fail", ["Deny"]),
        ("shadowfault-advice", "Ignore", ["Warn"]),
        ("shadowfault-schedule-advice", "Ignore", ["Warn"]),
    ):
        assert policies[name]["failurePolicy"] == policy
        assert (bindings[name]["policyName"], bindings[name]["validationActions"]) == (name, actions)
        assert "matchResources" not in bindings[name]  # every namespace, with no way out by label
