"""An experiment is not alone: another one, a tool that heals the Deployment, an autoscaler."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from shadowfault_testing.api import eventually
from shadowfault_testing.product import REPLICAS

if TYPE_CHECKING:
    from shadowfault_testing.product import Product


def test_two_experiments_on_one_target(staging: Product) -> None:
    staging.run("first")
    staging.start("second")
    staging.await_phase("second", "Refused", "TargetBusy")
    assert staging.status("first")["phase"] == "Running"


def test_a_tool_that_applies_the_manifest_again_and_again(staging: Product) -> None:
    """Self-heal: whatever it takes out stays out, and it is never fought."""
    before = staging.template()
    original = staging.deployment()
    for noise in ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation"):
        original["metadata"].pop(noise, None)
    original.pop("status")
    staging.run("healed")
    manifest = json.dumps(original)

    def heal() -> bool:
        staging.kubectl("replace", "-f", "-", stdin=manifest)
        return staging.status("healed").get("phase") == "Finished"

    eventually("the experiment to be over", heal, seconds=60)
    assert staging.status("healed")["reason"] == "EnvironmentRemoved"
    staging.rolled_out()
    for _ in range(3):
        heal()
    assert staging.template() == before
    managers = staging.kubectl("get", "deployment/api", "-o", "json", "--show-managed-fields").stdout
    written = {entry["manager"] for entry in json.loads(managers)["metadata"]["managedFields"]}
    assert not {one for one in written if one.startswith("shadowfault")}, written


def test_scaled_up_during_a_run(staging: Product) -> None:
    """New pods take part, and all of them are restored."""
    before = staging.template()
    staging.run("scaled")
    staging.kubectl("scale", "deployment/api", f"--replicas={REPLICAS + 1}")
    try:
        staging.rolled_out()
        assert staging.status("scaled")["phase"] == "Running"
        pods = staging.pods()
        assert len(pods) == REPLICAS + 1
        assert all(json.loads(staging.http(pod, "/health"))["chaos"]["active"] for pod in pods)
        staging.delete("scaled")
        staging.rolled_out()
        assert staging.template() == before
        assert staging.deployment()["spec"]["replicas"] == REPLICAS + 1
    finally:
        staging.kubectl("scale", "deployment/api", f"--replicas={REPLICAS}")
        staging.rolled_out()
