"""Production is unreachable: by admission with the operator up and down, and by what the operator may do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from shadowfault_testing.api import eventually
from shadowfault_testing.product import KIND, SYSTEM, manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shadowfault_testing.product import Product

PRODUCTION = "shop-production"
OPERATOR = f"system:serviceaccount:{SYSTEM}:shadowfault-operator"


@pytest.fixture(params=["operator-up", "operator-down"])
def operator_state(request: pytest.FixtureRequest, product: Product) -> Iterator[str]:
    if request.param == "operator-up":
        yield request.param
        return
    _scale_operator(product, 0)
    yield request.param
    _scale_operator(product, 1)
    product.kind.kubectl("-n", SYSTEM, "rollout", "status", "deployment/shadowfault-operator")


def _scale_operator(product: Product, replicas: int) -> None:
    product.kind.kubectl("-n", SYSTEM, "scale", "deployment/shadowfault-operator", f"--replicas={replicas}")
    eventually(
        f"{replicas} operators",
        lambda: (
            (product.find("deployment", "shadowfault-operator", SYSTEM) or {})["status"].get("replicas", 0)
            == replicas
        ),
    )


def test_admission_refuses_production(product: Product, operator_state: str) -> None:
    refused = product.apply(manifest("sneaky", PRODUCTION), check=False)
    assert refused.returncode != 0, operator_state
    assert "production" in refused.stderr
    assert product.find(KIND, "sneaky", PRODUCTION) is None
    direct = product.apply(_deployment("true"), check=False)
    assert direct.returncode != 0
    assert "CHAOS_ENABLED" in direct.stderr


def test_the_operator_may_do_nothing_in_production(product: Product) -> None:
    """Asked of the API server, and tried for real as that service account."""
    for verb, what in (
        ("patch", "deployments"),
        ("update", "deployments"),
        ("get", "secrets"),
        ("list", "pods"),
    ):
        asked = product.kind.kubectl(
            "auth", "can-i", verb, what, "-n", PRODUCTION, "--as", OPERATOR, check=False
        )
        assert asked.stdout.strip() == "no", (verb, what)
    assert product.kind.kubectl(
        "auth", "can-i", "patch", "deployments", "-n", "staging", "--as", OPERATOR
    ).stdout.strip() == "yes"  # fmt: skip
    product.apply(_deployment("false"))
    tried = product.kind.kubectl(
        *("-n", PRODUCTION, "patch", "deployment", "shop", "--as", OPERATOR, "--type=strategic"),
        *("--patch", json.dumps({"metadata": {"labels": {"touched": "yes"}}})),
        check=False,
    )
    assert tried.returncode != 0
    assert "forbidden" in tried.stderr.lower()


def _deployment(enabled: str) -> dict[str, object]:
    labels = {"app": "shop"}
    env = [{"name": "CHAOS_ENABLED", "value": enabled}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop", "namespace": PRODUCTION},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "shop", "image": "example.invalid/shop:1", "env": env}]},
            },
        },
    }
