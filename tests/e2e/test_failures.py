"""Whoever dies, it ends on time and nothing acknowledged is lost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shadowfault_demo.traffic import SteadyTraffic, create_listings, request_ids
from shadowfault_testing.api import eventually
from shadowfault_testing.product import KIND, SYSTEM

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_testing.product import Product


def _kill_operator(product: Product) -> None:
    product.kind.kubectl(
        "-n", SYSTEM, "delete", "pod", "-l", "app.kubernetes.io/component=operator",
        "--grace-period=0", "--force", "--wait=false",
    )  # fmt: skip


def _operator_back(product: Product) -> None:
    product.kind.kubectl(
        "-n", SYSTEM, "rollout", "status", "deployment/shadowfault-operator", "--timeout=120s"
    )


def traffic_past(deadline: datetime, product: Product) -> None:
    """Traffic until so much came after the deadline that a fault of those pods would be among it."""
    with SteadyTraffic(product.api_url, f"past-{datetime.now(UTC):%H%M%S}") as traffic:
        eventually("the deadline", lambda: datetime.now(UTC) > deadline, seconds=60)
        count = traffic.account.statuses["201"]
        eventually("traffic after it", lambda: traffic.account.statuses["201"] > count + 50, seconds=60)


def test_the_operator_killed_during_injection_and_during_delete(staging: Product) -> None:
    before = staging.template()
    staging.start("killed", rate=1)
    _kill_operator(staging)
    staging.await_phase("killed", "Running")
    _operator_back(staging)
    staging.kubectl("delete", KIND, "killed", "--wait=false")
    _kill_operator(staging)
    eventually("the experiment to be gone", lambda: staging.find(KIND, "killed") is None, seconds=120)
    _operator_back(staging)
    assert staging.template() == before


def test_the_operator_gone_at_expiry(staging: Product, report: Callable[[str], None]) -> None:
    """The pods hold the deadline by themselves; the operator puts the Deployment back when it returns."""
    before = staging.template()
    staging.run("orphan", rate=1, duration="30s")
    expires_at = datetime.fromisoformat(staging.status("orphan")["expiresAt"])
    staging.kind.kubectl("-n", SYSTEM, "scale", "deployment/shadowfault-operator", "--replicas=0")
    try:
        traffic_past(expires_at, staging)
        staging.outbox_drained()
        last = staging.last_fault_at()
        assert last is not None
        assert last <= expires_at
        report(f"last fault {(expires_at - last).total_seconds():.2f} s before the deadline, no operator")
        assert staging.chaos_env()["CHAOS_ENABLED"] == "true"
    finally:
        staging.kind.kubectl("-n", SYSTEM, "scale", "deployment/shadowfault-operator", "--replicas=1")
    staging.await_phase("orphan", "Finished", "Expired", seconds=120)
    staging.rolled_out()
    assert staging.template() == before


def test_pods_killed_under_load_lose_no_acknowledged_write(staging: Product) -> None:
    staging.run("pods", rate=0.3)
    run = f"kill-{datetime.now(UTC):%H%M%S}"
    with SteadyTraffic(staging.api_url, run) as traffic:
        eventually("some traffic", lambda: traffic.account.statuses["201"] > 50)
        staging.kubectl(
            "delete", "pod", "-l", "app.kubernetes.io/component=api",
            "--grace-period=0", "--force", "--wait=false",
        )  # fmt: skip
        staging.rolled_out()
        count = traffic.account.statuses["201"]
        eventually("traffic again", lambda: traffic.account.statuses["201"] > count + 50, seconds=60)
    acknowledged = traffic.account.statuses["201"]
    assert staging.listings(run) >= acknowledged
    staging.delete("pods")
    staging.outbox_drained()
    assert staging.verify(f"e2e-{run}")["unexplained"] == 0


def test_the_primary_database_restarted(staging: Product) -> None:
    """The service is back without help, with everything that it acknowledged."""
    run = f"restart-{datetime.now(UTC):%H%M%S}"
    with SteadyTraffic(staging.api_url, run) as traffic:
        eventually("some traffic", lambda: traffic.account.statuses["201"] > 20)
        old = (staging.find("pod", "postgresql-primary-0") or {})["metadata"]["uid"]
        staging.kubectl("delete", "pod", "postgresql-primary-0", "--wait=false")
        eventually(
            "another pod",
            lambda: (
                (staging.find("pod", "postgresql-primary-0") or {}).get("metadata", {}).get("uid", old) != old
            ),
            seconds=60,
        )
        staging.rolled_out("statefulset/postgresql-primary")
        count = traffic.account.statuses["201"]
        eventually("traffic again", lambda: traffic.account.statuses["201"] > count + 20, seconds=90)
    staging.outbox_drained(seconds=90)
    assert staging.listings(run) >= traffic.account.statuses["201"]
    assert staging.verify(f"e2e-{run}")["unexplained"] == 0


def test_the_shadow_gone_and_back(staging: Product, report: Callable[[str], None]) -> None:
    """No user notices. Scaled to zero: kind's network plugin need not enforce a NetworkPolicy."""
    run = f"cut-{datetime.now(UTC):%H%M%S}"
    staging.kubectl("scale", "statefulset/postgresql-shadow", "--replicas=0")
    try:
        staging.kubectl("wait", "--for=delete", "pod/postgresql-shadow-0", "--timeout=60s")
        account = create_listings(staging.api_url, request_ids(run, 100))
        assert account.refused == 0, str(account)
        waiting = int(staging.sql("SELECT count(*) AS n FROM outbox")[0]["n"])
        assert waiting > 0
        report(f"{account} with no shadow, {waiting} rows in the outbox")
    finally:
        staging.kubectl("scale", "statefulset/postgresql-shadow", "--replicas=1")
        staging.rolled_out("statefulset/postgresql-shadow")
    staging.outbox_drained(seconds=90)
    assert staging.verify(f"e2e-{run}")["unexplained"] == 0


def test_it_ends_by_itself_though_no_kubelet_answers(staging: Product, report: Callable[[str], None]) -> None:
    """The pods end by their own deadline, the Deployment is restored, and the rest follows with the node."""
    before = staging.template()
    staging.run("node", rate=1, duration="30s")
    expires_at = datetime.fromisoformat(staging.status("node")["expiresAt"])
    if staging.kind.disposable:
        staging.kind.on_node("systemctl", "stop", "kubelet")
    else:
        report("the kubelet was left alone: this cluster was not made by the suite")
    try:
        traffic_past(expires_at, staging)
        staging.await_phase("node", "Finished", "Expired", seconds=60)
    finally:
        if staging.kind.disposable:
            staging.kind.on_node("systemctl", "start", "kubelet")
    staging.kind.kubectl("wait", "node", "--all", "--for=condition=Ready", "--timeout=120s")
    staging.rolled_out()
    staging.outbox_drained()
    last = staging.last_fault_at()
    assert last is not None
    assert last <= expires_at
    finished = datetime.fromisoformat(staging.status("node")["finishedAt"])
    report(f"finished {(finished - expires_at).total_seconds():.2f} s after the deadline")
    assert staging.template() == before
