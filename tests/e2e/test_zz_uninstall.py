"""Ways out: of a namespace, of a release, with an experiment running. Last, for they end what others use."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from shadowfault_testing.api import eventually
from shadowfault_testing.product import KIND, RELEASE, STAGING, SYSTEM

if TYPE_CHECKING:
    from shadowfault_testing.product import Product

pytestmark = pytest.mark.xdist_group("uninstall")


def test_upgrade_and_rollback_with_an_experiment_running(staging: Product) -> None:
    staging.run("upgraded")
    env = staging.chaos_env()
    staging.upgrade("operator.logLevel=DEBUG")
    assert staging.status("upgraded")["phase"] == "Running"
    assert staging.chaos_env() == env
    staging.kind.helm("-n", SYSTEM, "rollback", RELEASE, "--wait", "--timeout", "5m")
    staging.settle()
    assert staging.status("upgraded")["phase"] == "Running"
    assert staging.chaos_env() == env
    staging.delete("upgraded")
    staging.rolled_out()
    assert staging.chaos_env() == {}


# Rows for shards to share, whatever tests have left: the same in both databases.
_ENOUGH = """
    INSERT INTO listings (id, title, price, version, created_at, updated_at)
    SELECT '01890000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'), 'listing ' || n, n, 1, at, at
    FROM generate_series(1, 600) AS n, (SELECT timestamptz '2026-01-01' AS at) AS moment
"""


def test_the_verifier_in_shards_after_an_upgrade(staging: Product) -> None:
    for database in ("primary", "shadow"):
        staging.sql(_ENOUGH, database)
    rows = int(staging.sql("SELECT count(*) AS n FROM listings")[0]["n"])
    staging.upgrade(
        "verifier.shards=3",
        # Each run is a sweep: else shards share the one that is due, and one looks at what changed.
        "verifier.fullSweepEvery=0s",
        # Slow enough to be caught in the middle.
        f"verifier.rowsPerSecond={max(3, rows // 15)}",
    )
    staging.start_verifying("sharded")
    killed = eventually("a shard to be in the middle of its part", lambda: _pod_at_work(staging, "sharded"))
    staging.kubectl("delete", "pod", killed, "--grace-period=0", "--force")
    reports = staging.verified("sharded")
    merged = [one for one in reports if "mode" in one]
    assert (len(reports), len(merged)) == (3, 1)
    job = staging.find("job", "sharded")
    assert job is not None
    assert job["status"]["succeeded"] == 3
    (report,) = merged
    assert (report["runId"], report["sweep"]["parts"]) == (job["metadata"]["uid"], 3)
    assert report["scanned"]["primary"] == rows
    runs = staging.sql(f"SELECT state, trigger FROM job_runs WHERE id = '{report['runId']}'")
    assert runs == [{"state": "succeeded", "trigger": "schedule"}]
    staging.upgrade()


def _pod_at_work(staging: Product, job: str) -> str | None:
    """Name a pod of a sharded run whose part has begun and not ended."""
    run = (staging.find("job", job) or {})["metadata"]["uid"]
    begun = staging.sql(
        "SELECT number FROM verifier_parts JOIN verifier_sweeps ON verifier_sweeps.id = sweep_id"
        f" WHERE run_id = '{run}' AND rows_looked_at > 0 AND ended_at IS NULL ORDER BY number LIMIT 1"
    )
    if not begun:
        return None
    index = f"batch.kubernetes.io/job-completion-index={begun[0]['number']}"
    labels = f"batch.kubernetes.io/job-name={job},{index}"
    query = ("get", "pods", "-l", labels, "--field-selector=status.phase=Running", "-o", "name")
    return staging.kubectl(*query).stdout.strip().removeprefix("pod/") or None


def test_uninstall_with_a_running_experiment_and_reinstall(product: Product) -> None:
    """The target of this one outlives the release: a Deployment of the namespace's owner."""
    target = _target("bystander", product.image)
    product.apply(target)
    before = product.find("deployment", "bystander")
    assert before is not None
    product.start("leaving", targetRef={"kind": "Deployment", "name": "bystander"})
    product.await_phase("leaving", "Running")
    product.uninstall()
    after = product.find("deployment", "bystander")
    assert after is not None
    assert after["spec"]["template"] == before["spec"]["template"]
    crd = product.find("customresourcedefinition", KIND)
    assert crd is not None, "crds.keep keeps the kind"
    status = product.status("leaving")
    assert (status["phase"], status["reason"]) == ("Finished", "SuspendedWhileRunning"), "and every record"

    product.install()
    product.run("again")
    product.delete("again")
    product.rolled_out()
    assert product.chaos_env() == {}


def test_delete_namespace_with_a_running_experiment(product: Product) -> None:
    product.run("doomed")
    product.kind.kubectl("delete", "namespace", STAGING, "--wait=false")
    eventually(
        "the namespace to be gone",
        lambda: not product.kind.kubectl("get", "namespace", STAGING, "--ignore-not-found").stdout.strip(),
        seconds=180,
    )
    log = product.kind.kubectl("-n", SYSTEM, "logs", "deployment/shadowfault-operator", "--tail=200").stdout
    assert not any(_is_traceback(line) for line in log.splitlines())


def _is_traceback(line: str) -> bool:
    try:
        return "exception" in json.loads(line)
    except ValueError:
        return line.startswith("Traceback")


def _target(name: str, image: str) -> dict[str, object]:
    labels = {"app": name}
    container = {"name": "app", "image": image, "command": ["sleep", "infinity"]}
    container["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": STAGING},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
        },
    }
