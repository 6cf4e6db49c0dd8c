"""Each net refuses what it is there for. Taking one out of NETS fails the test that names it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shadowfault_operator import nets
from shadowfault_operator.environment import Resolved, node_env
from shadowfault_operator.halt import HaltState
from shadowfault_operator.marks import production_label, production_word
from shadowfault_operator.nets import NETS, Objection, Rival, Situation, first_objection
from shadowfault_operator.reasons import Reason
from shadowfault_operator.target import Container
from shadowfault_testing.objects import container, owned

if TYPE_CHECKING:
    from collections.abc import Callable

PRODUCTION = yaml.safe_load((Path(__file__).parents[2] / "data" / "production_names.yaml").read_text())[
    "cases"
]


@pytest.mark.parametrize("case", PRODUCTION, ids=lambda case: f"{case['name']} {case.get('labels', '')}")
def test_the_table_of_production_marks(case: dict[str, Any]) -> None:
    marked = production_word(case["name"]) or production_label(case.get("labels", {}))
    assert bool(marked) is case["production"]


def situation(scene: Any, **changes: Any) -> Situation:
    view = scene.view()
    fields = {"config_maps": {}, "rivals": (), "halt": view.halt, **changes}
    assert view.namespace is not None
    return Situation(view.experiment, view.namespace, view.target, **fields)


def test_everything_in_order_is_let_through(scene: Any) -> None:
    assert first_objection(NETS, situation(scene)) is None


def env(*entries: dict[str, Any]) -> Callable[[Any], None]:
    def bend(scene: Any) -> None:
        scene.containers[0]["env"] = list(entries)

    return bend


def attribute(name: str, value: Any) -> Callable[[Any], None]:
    return lambda scene: setattr(scene, name, value)


def two_containers(scene: Any) -> None:
    scene.containers.append(container("sidecar"))


def production_sidecar(scene: Any) -> None:
    scene.containers.append(container("sidecar", env=[{"name": "NODE_ENV", "value": "production"}]))
    scene.spec = {"targetRef": {"name": "api", "container": "api"}}


def scaled_by_flagger(scene: Any) -> None:
    scene.managed = [{"manager": "flagger", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]


def enabled_by_hand(scene: Any) -> None:
    scene.containers[0]["env"] = [{"name": "CHAOS_ENABLED", "value": "true"}]
    scene.managed = [owned("kubectl-set", ["CHAOS_ENABLED"])]


def held_by_another(scene: Any) -> None:
    names = ["CHAOS_EXPERIMENT", "CHAOS_EXPERIMENT_UID"]
    scene.containers[0]["env"] = [
        {"name": "CHAOS_EXPERIMENT", "value": "staging/first"},
        {"name": "CHAOS_EXPERIMENT_UID", "value": "another-uid"},
    ]
    scene.managed = [owned("shadowfault", names, operation="Apply")]


SECRET = {"name": "NODE_ENV", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
FIELD = {"name": "NODE_ENV", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
CONFIG = {"name": "NODE_ENV", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "k"}}}

REFUSED = [
    (nets.nothing_is_halted, attribute("halt", HaltState(reason="incident 7")), Reason.HALTED, "incident 7"),
    (nets.spec_is_valid, attribute("spec", {"rate": 1.5}), Reason.INVALID_SPEC, "rate"),
    (nets.spec_is_valid, attribute("spec", {"duration": "5h"}), Reason.INVALID_SPEC, "4h"),
    (nets.spec_is_valid, attribute("spec", {"duration": None}), Reason.INVALID_SPEC, "duration"),
    (nets.spec_is_valid, attribute("spec", {"scope": "everything"}), Reason.INVALID_SPEC, "scope"),
    (nets.namespace_has_opted_in, attribute("labels", {}), Reason.NAMESPACE_NOT_ALLOWED, "allowed"),
    (
        nets.namespace_has_opted_in,
        attribute("labels", {"chaos.shadowfault.dev/allowed": "yes"}),
        Reason.NAMESPACE_NOT_ALLOWED,
        "allowed",
    ),
    (
        nets.namespace_name_is_not_production,
        attribute("namespace", "shop-prod"),
        Reason.PRODUCTION_NAMESPACE,
        "prod",
    ),
    (
        nets.namespace_labels_are_not_production,
        attribute("labels", {"chaos.shadowfault.dev/allowed": "true", "env": "live"}),
        Reason.PRODUCTION_NAMESPACE,
        "env=live",
    ),
    (nets.target_exists, attribute("target_exists", False), Reason.TARGET_NOT_FOUND, "api"),
    (nets.container_is_known, two_containers, Reason.CONTAINER_AMBIGUOUS, "api, sidecar"),
    (
        nets.container_is_known,
        attribute("spec", {"targetRef": {"name": "api", "container": "web"}}),
        Reason.CONTAINER_NOT_FOUND,
        "web",
    ),
    (
        nets.environment_has_no_duplicates,
        env({"name": "A", "value": "1"}, {"name": "A", "value": "2"}),
        Reason.DUPLICATE_ENV,
        "A",
    ),
    (
        nets.node_env_is_not_production,
        env({"name": "NODE_ENV", "value": "production"}),
        Reason.PRODUCTION_TARGET,
        "NODE_ENV=production",
    ),
    (
        nets.node_env_is_not_production,
        env({"name": "NODE_ENV", "value": " Production "}),
        Reason.PRODUCTION_TARGET,
        "NODE_ENV",
    ),
    (nets.node_env_is_not_production, production_sidecar, Reason.PRODUCTION_TARGET, "sidecar"),
    (nets.node_env_is_not_production, env(SECRET), Reason.NODE_ENV_UNRESOLVABLE, "secretKeyRef"),
    (nets.node_env_is_not_production, env(FIELD), Reason.NODE_ENV_UNRESOLVABLE, "fieldRef"),
    (nets.node_env_is_not_production, env(CONFIG), Reason.NODE_ENV_UNRESOLVABLE, "absent"),
    (
        nets.node_env_is_not_production,
        env({"name": "NODE_ENV", "value": "$(STAGE)"}),
        Reason.NODE_ENV_UNRESOLVABLE,
        "STAGE",
    ),
    (
        nets.node_env_is_not_production,
        attribute("containers", [container(envFrom=[{"secretRef": {"name": "s"}}])]),
        Reason.NODE_ENV_UNRESOLVABLE,
        "Secret s",
    ),
    (nets.target_is_not_busy, held_by_another, Reason.TARGET_BUSY, "staging/first"),
    (nets.chaos_is_not_enabled_by_hand, enabled_by_hand, Reason.CHAOS_ALREADY_ENABLED, "kubectl-set"),
    (nets.target_is_not_handed_over, scaled_by_flagger, Reason.TARGET_HANDED_OVER, "set by flagger"),
    (nets.rollouts_are_not_paused, attribute("deployment", {"paused": True}), Reason.TARGET_PAUSED, "resume"),
    (
        nets.target_has_replicas,
        attribute("deployment", {"replicas": 0}),
        Reason.TARGET_WITHOUT_REPLICAS,
        "no replicas",
    ),
]


@pytest.mark.parametrize(
    ("net", "bend", "reason", "said"),
    REFUSED,
    ids=[f"{net.__name__}-{reason.title}-{said}" for net, _, reason, said in REFUSED],
)
def test_a_net_refuses(
    scene: Any, net: nets.Net, bend: Callable[[Any], None], reason: Reason, said: str
) -> None:
    bend(scene)
    for objection in (net(situation(scene)), first_objection(NETS, situation(scene))):
        assert isinstance(objection, Objection)
        assert objection.reason is reason
        assert said in objection.message
    assert net in NETS


def test_every_net_has_a_refusal_here() -> None:
    tested = {net for net, *_ in REFUSED} | {nets.target_labels_are_not_production}
    assert tested == set(NETS)


def test_a_target_labelled_production_is_refused(scene: Any) -> None:
    seen = situation(scene)
    assert seen.target is not None
    seen.target.raw["spec"]["template"]["metadata"]["labels"]["tier"] = "prod"
    objection = first_objection(NETS, seen)
    assert objection is not None
    assert (objection.reason, "tier=prod" in objection.message) == (Reason.PRODUCTION_TARGET, True)


OLDER = "2026-03-01T11:00:00Z"
YOUNGER = "2026-03-01T11:59:30Z"


@pytest.mark.parametrize(
    ("started", "created", "refused"),
    [(True, OLDER, True), (True, YOUNGER, True), (False, OLDER, True), (False, YOUNGER, False)],
)
def test_the_running_one_and_else_the_older_one_has_the_target(
    scene: Any, started: bool, created: str, refused: bool
) -> None:
    rival = Rival("other", "other-uid", started, (created, "other-uid"))
    objection = first_objection(NETS, situation(scene, rivals=(rival,)))
    assert (objection is not None) is refused
    if objection:
        assert objection.reason is Reason.TARGET_BUSY
        assert "other" in objection.message


@given(
    everyone=st.lists(
        st.tuples(st.booleans(), st.sampled_from([OLDER, YOUNGER]), st.uuids().map(str)),
        min_size=1,
        max_size=5,
        unique_by=lambda one: one[2],
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # only its type is used
def test_of_several_that_know_each_other_exactly_one_passes(
    scene: Any, everyone: list[tuple[bool, str, str]]
) -> None:
    """Two may have recorded themselves before either knew of the other: one of them must still go on."""
    passed = 0
    for started, created, uid in everyone:
        one = type(scene)(metadata={"uid": uid, "creationTimestamp": created})
        seen = one.view(one.recorded()) if started else one.view()
        assert seen.namespace is not None
        rivals = tuple(
            Rival(other[2], other[2], other[0], (other[1], other[2])) for other in everyone if other[2] != uid
        )
        objection = first_objection(NETS, Situation(seen.experiment, seen.namespace, seen.target, {}, rivals))
        assert objection is None or objection.reason is Reason.TARGET_BUSY
        passed += objection is None
    assert passed == 1


CASES: list[tuple[list[dict[str, Any]], list[dict[str, Any]], Any]] = [
    (
        [{"name": "NODE_ENV", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "env"}}}],
        [],
        "production",
    ),
    ([], [{"configMapRef": {"name": "cm"}}], "production"),
    ([], [{"prefix": "NODE_", "configMapRef": {"name": "prefixed"}}], "production"),
    ([], [{"configMapRef": {"name": "cm"}}, {"configMapRef": {"name": "later"}}], "staging"),
    ([{"name": "NODE_ENV", "value": "test"}], [{"configMapRef": {"name": "cm"}}], "test"),
    ([{"name": "NODE_ENV", "value": "test"}], [{"secretRef": {"name": "s"}}], "test"),
    ([], [{"secretRef": {"name": "s"}}, {"configMapRef": {"name": "later"}}], "staging"),
    ([], [{"configMapRef": {"name": "none", "optional": True}}], None),
    ([], [{"prefix": "X_", "secretRef": {"name": "s"}}], None),
    ([], [], None),
]


@pytest.mark.parametrize(("env", "sources", "expected"), CASES)
def test_node_env_is_resolved_as_the_kubelet_does(
    env: list[dict[str, Any]], sources: list[dict[str, Any]], expected: str | None
) -> None:
    config_maps = {
        "cm": {"env": "production", "NODE_ENV": "production"},
        "prefixed": {"ENV": "production"},
        "later": {"NODE_ENV": "staging"},
        "none": None,
    }
    raw = container(env=env, envFrom=sources)
    assert node_env(Container(raw), config_maps) == Resolved(expected)


def test_reasons_are_a_closed_list_of_distinct_words() -> None:
    titles = [reason.title for reason in Reason]
    assert len(titles) == len(set(titles))
    assert all(title.isalnum() for title in titles)
