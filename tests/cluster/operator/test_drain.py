"""`shadowfault drain` on the real API server: what an uninstall does first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from shadowfault_testing.api import experiments, schedules
from shadowfault_testing.objects import schedule

if TYPE_CHECKING:
    from shadowfault_testing.operator import Ground, OperatorProcess

pytestmark = pytest.mark.cluster


def drain(ground: Ground, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it as an administrator, on this namespace: other tests have experiments in theirs."""
    return subprocess.run(
        [sys.executable, "-m", "shadowfault_cli", "drain", "-n", ground.namespace, *arguments],
        env={**os.environ, "KUBECONFIG": str(ground.cluster.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_ends_what_runs_and_waits_until_the_target_is_restored(
    own_ground: Ground, own_operator: OperatorProcess
) -> None:
    own_operator.start()
    target = own_ground.deploy()
    before = own_ground.target(target)["spec"]
    name = own_ground.run(target)
    assert own_ground.target(target)["spec"] != before

    # The operator is away: the finalizer holds, and the message says what to do.
    own_operator.stop(signal.SIGKILL)
    held = drain(own_ground, "--timeout", "1")
    assert held.returncode == 1
    assert f"{own_ground.namespace}/{name}" in held.stderr
    assert "finalizer waits for the operator" in held.stderr
    assert own_ground.target(target)["spec"] != before

    own_operator.start()
    done = drain(own_ground, "--timeout", "60")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("drain: no experiment is running\n")
    assert own_ground.target(target)["spec"] == before
    status = (own_ground.experiment(name) or {})["status"]
    assert (status["phase"], status["reason"]) == ("Finished", "SuspendedWhileRunning"), "the record stays"

    again = drain(own_ground, "--timeout", "1")
    assert (again.returncode, again.stdout) == (0, "drain: no experiment is running\n")


def test_what_has_not_begun_never_does_and_no_schedule_starts_more(
    own_ground: Ground, own_operator: OperatorProcess
) -> None:
    """Without an operator: nothing is in a target, so there is nothing to wait for."""
    target = own_ground.deploy()
    name = own_ground.start(target)
    path = schedules(own_ground.namespace)
    body = schedule("often", spec={"targetRef": {"name": target}})
    own_ground.api.request("POST", path, body)
    done = drain(own_ground, "--timeout", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert (own_ground.experiment(name) or {})["spec"]["suspend"] is True
    assert own_ground.api.request("GET", f"{path}/often")["spec"]["suspend"] is True
    own_operator.start()
    own_ground.await_phase(name, "Pending", "Suspended")
    assert own_ground.api.request("GET", experiments(own_ground.namespace))["items"] != []
