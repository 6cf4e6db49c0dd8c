"""Whose chaos it is that a Deployment carries."""

from __future__ import annotations

from typing import Any

import pytest

from shadowfault_operator.orphans import Behind, remains, unmanaged
from shadowfault_operator.target import Target
from shadowfault_testing.objects import container, deployment, owned

NOBODY = Behind(frozenset(), frozenset(), frozenset())
OURS = {
    "CHAOS_ENABLED": "true",
    "CHAOS_EXPERIMENT": "staging/shadow",
    "CHAOS_EXPERIMENT_UID": "uid",
}


def target(manager: str = "shadowfault", **env: str) -> Target:
    raw = deployment(containers=[container(env=[{"name": name, "value": env[name]} for name in env])])
    raw["metadata"] |= {
        "uid": "target",
        "resourceVersion": "1",
        "managedFields": [owned(manager, list(env))],
    }
    return Target(raw)


def test_what_nobody_stands_behind_is_remains() -> None:
    found = remains(target(**OURS), NOBODY)
    assert found is not None
    assert (found.container, found.environment, found.target_uid) == ("api", OURS, "target")


@pytest.mark.parametrize(
    "behind",
    [
        Behind(frozenset({"uid"}), frozenset(), frozenset()),
        Behind(frozenset(), frozenset(), frozenset({"target"})),
    ],
)
def test_what_an_experiment_stands_behind_is_not(behind: Behind) -> None:
    assert remains(target(**OURS), behind) is None


def test_a_later_experiment_of_the_same_name_does_not_stand_behind_it() -> None:
    later = Behind(frozenset({"later"}), frozenset({"staging/shadow"}), frozenset())
    assert remains(target(**OURS), later) is not None


def test_without_its_uid_the_name_says_whose_it_is() -> None:
    without = {name: value for name, value in OURS.items() if name != "CHAOS_EXPERIMENT_UID"}
    assert remains(target(**without), Behind(frozenset(), frozenset({"staging/shadow"}), frozenset())) is None
    assert remains(target(**without), NOBODY) is not None


def test_without_both_marks_it_is_nobodys() -> None:
    found = remains(target(CHAOS_ENABLED="true"), Behind(frozenset({"uid"}), frozenset(), frozenset()))
    assert found is not None


def test_what_others_set_is_theirs() -> None:
    assert remains(target("kubectl-set", **OURS), NOBODY) is None


@pytest.mark.parametrize(
    ("manager", "env", "expected"),
    [
        ("kubectl-set", {"CHAOS_ENABLED": "true"}, True),
        ("kubectl-set", {"CHAOS_ENABLED": "1"}, True),
        ("kubectl-set", {"CHAOS_ENABLED": "false"}, False),
        ("kubectl-set", {"CHAOS_ENABLED": "perhaps"}, False),
        ("kubectl-set", {"CHAOS_ENABLED": ""}, False),
        ("kubectl-set", {}, False),
        ("shadowfault", {"CHAOS_ENABLED": "true"}, False),
    ],
)
def test_chaos_switched_on_by_hand(manager: str, env: dict[str, Any], expected: bool) -> None:
    assert unmanaged(target(manager, **env)) is expected
