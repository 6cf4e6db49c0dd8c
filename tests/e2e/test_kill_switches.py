"""Each way to stop by hand, as the seed writes it; afterwards the metric stands still."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from shadowfault_demo.traffic import SteadyTraffic, create_listings, request_ids
from shadowfault_testing.api import eventually
from shadowfault_testing.product import KIND, REPLICAS

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_testing.product import Product

SWITCHES = {
    "delete": [("delete", KIND, "switch")],
    "set-env": [("set", "env", "deployment/api", "CHAOS_ENABLED=false")],
    "restart": [("rollout", "restart", "deployment/api")],
    "scale": [
        ("scale", "deployment/api", "--replicas=0"),
        ("scale", "deployment/api", f"--replicas={REPLICAS}"),
    ],
}
REASONS = {"set-env": "Overridden", "restart": "RolloutRestarted", "scale": "ScaledToZero"}


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_kill_switch_stops_the_faults(staging: Product, switch: str, report: Callable[[str], None]) -> None:
    staging.run("switch", rate=1)
    with SteadyTraffic(staging.api_url, f"before-{switch}-{datetime.now(UTC):%H%M%S}"):
        before = staging.failures()
        eventually("faults under load", lambda: staging.failures() > before)
        for command in SWITCHES[switch]:
            staging.kubectl(*command)
            if command[0] == "scale" and command[-1].endswith("=0"):
                # A person looks before the next command; so quick that nothing noticed is its own test.
                staging.await_phase("switch", "Finished", REASONS["scale"])
        stopped = datetime.now(UTC)
        if switch in REASONS:
            staging.await_phase("switch", "Finished", REASONS[switch])
        else:
            assert staging.find(KIND, "switch") is None
        staging.rolled_out()
    staging.outbox_drained()
    last = staging.last_fault_at()
    assert last is not None
    report(f"last fault {(last - stopped).total_seconds():+.2f} s after the command returned")

    metric, evidence = staging.metric("chaos_injected_faults_total"), staging.failures()
    account = create_listings(staging.api_url, request_ids(f"after-{switch}", 100))
    assert account.refused == 0, str(account)
    staging.outbox_drained()
    assert staging.metric("chaos_injected_faults_total") == metric
    assert staging.failures() == evidence
    expected = {"CHAOS_ENABLED": "false"} if switch == "set-env" else {}
    assert staging.chaos_env() == expected


def test_the_troubleshooting_commands_of_the_contract(staging: Product) -> None:
    staging.run("trouble", rate=0.5)
    listed = staging.kubectl("exec", "deployment/api", "--", "env").stdout
    chaos = [line for line in listed.splitlines() if "CHAOS" in line]
    assert "CHAOS_ENABLED=true" in chaos
    assert "CHAOS_FAIL_RATE=0.5" in chaos

    # curl http://localhost:4000/health | jq '.chaos', from inside the pod.
    inside = _inside(staging, "/health")
    assert json.loads(inside)["chaos"]["enabled"] is True
    jobs = json.loads(_inside(staging, "/api/admin/jobs"))
    assert [job["name"] for job in jobs] == ["shadow-discrepancy-verifier"]
    triggered = json.loads(_inside(staging, "/api/admin/jobs/shadow-discrepancy-verifier/trigger", post=True))
    assert triggered

    staging.kubectl("set", "env", "deployment/api", "CHAOS_FAIL_RATE=0.05")
    eventually("the lowered rate to be honoured", lambda: staging.status("trouble")["effectiveRate"] == 0.05)
    assert staging.status("trouble")["phase"] == "Running"


def _inside(staging: Product, path: str, *, post: bool = False) -> str:
    """A request from inside a pod to its own loopback, which is where the admin paths answer."""
    program = (
        "import sys,urllib.request as u;"
        "print(u.urlopen(u.Request('http://localhost:4000'+sys.argv[1],method=sys.argv[2])).read().decode())"
    )
    method = "POST" if post else "GET"
    return staging.kubectl("exec", "deployment/api", "--", "python", "-c", program, path, method).stdout
