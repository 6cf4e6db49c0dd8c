"""The life of an experiment with traffic, PostgreSQL, the verifier's CronJob, evidence and verdict."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import shadowfault
from shadowfault_demo.observe import DISCREPANCIES_SQL, FAILURES_SQL
from shadowfault_demo.traffic import create_listings, request_ids
from shadowfault_testing.api import eventually

if TYPE_CHECKING:
    from shadowfault_testing.product import Product

SEED, RATE = "e2e-life", 0.3


def test_an_experiment_from_apply_to_verdict(staging: Product) -> None:
    before = staging.template()
    staging.run("life", rate=RATE, seed=SEED)
    uid = staging.find("chaosexperiments.chaos.shadowfault.dev", "life")["metadata"]["uid"]

    health = json.loads(staging.http(staging.pods()[0], "/health"))["chaos"]
    assert (health["active"], health["failRate"], health["experimentUid"]) == (True, RATE, uid)

    ids = request_ids("life", 200)
    account = create_listings(staging.api_url, ids)
    assert (account.sent, account.refused) == (200, 0), str(account)
    staging.outbox_drained()
    expected = {one for one in ids if shadowfault.draw(SEED, "Listing", "create", one) < RATE}
    failed = staging.sql(
        "SELECT request_id FROM evidence_records WHERE event_type = 'SHADOW_WRITE_FAILURE' "
        f"AND details->>'experimentUid' = '{uid}'"
    )
    assert {row["request_id"] for row in failed} == expected
    faults = staging.metric("chaos_injected_faults_total", entity_type="Listing", operation="create")
    assert faults == len(expected)

    found = staging.verify("e2e-life-verify")
    assert found["unexplained"] == 0
    assert found["byCause"]["injected"] >= len(expected)
    assert staging.metric("shadow_discrepancies_total", discrepancy_type="missing_in_shadow") > 0

    for query, event in (
        (FAILURES_SQL, "SHADOW_WRITE_FAILURE"),
        (DISCREPANCIES_SQL, "SHADOW_WRITE_DISCREPANCY"),
    ):
        rows = staging.sql(query)
        assert len(rows) == 50
        assert {row["event_type"] for row in rows} == {event}

    staging.kubectl(
        "patch", "chaosexperiments.chaos.shadowfault.dev", "life", "--type=merge",
        "--patch", '{"spec": {"suspend": true}}',
    )  # fmt: skip
    staging.await_phase("life", "Finished", "SuspendedWhileRunning")
    staging.rolled_out()
    assert staging.template() == before

    verdict = eventually("the verdict", lambda: staging.status("life").get("verdict"), seconds=120)
    assert (verdict["result"], verdict["reason"]) == ("Passed", "AllExplained"), verdict
    told = verdict["account"]
    assert told["injected"] == len(expected)
    assert told["explained"] == sum(told["discrepancies"].values()) >= len(expected)
    assert (told["unexplained"], told["primaryErrors"], told["primaryRequests"]) == (0, 0, 200)
    shown = staging.kubectl("get", "chaosexperiments.chaos.shadowfault.dev", "life").stdout
    assert "Passed" in shown


def test_the_cronjob_runs_every_quarter_of_an_hour(staging: Product) -> None:
    cronjob = staging.find("cronjob", "shadow-discrepancy-verifier")
    assert cronjob is not None
    assert cronjob["spec"]["schedule"] == "*/15 * * * *"


def test_helm_test_passes(product: Product) -> None:
    product.kind.helm("-n", "shadowfault-system", "test", "shadowfault", "--timeout", "3m")
