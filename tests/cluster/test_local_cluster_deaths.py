"""Whoever is killed: no process of a cluster and no file of it is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shadowfault_cluster import Cluster, assets, processes
from shadowfault_cluster.layout import Layout
from shadowfault_cluster.progress import LineReporter
from shadowfault_cluster.teardown import KEEP_LOGS, remove_stale

if TYPE_CHECKING:
    from collections.abc import Callable

    Eventually = Callable[[Callable[[], Any]], Any]

pytestmark = pytest.mark.cluster


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep others away: any cluster that starts cleans up after those whose guardians are gone."""
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets.ensure(LineReporter(print))))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Remains:
    """What may be left of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        """Take note of everything while it runs."""
        self.layout = Layout(cluster.directory)
        self.record = cluster.record
        assert {"keeper", "supervisor", "etcd", "kube-apiserver", "kube-controller-manager"} <= set(
            self.record.pids
        )
        assert self.processes() >= set(self.record.pids.values()) - {self.record.pids["keeper"]}

    def processes(self) -> set[int]:
        """The processes that live: those of the record, and any other that carries the cookie."""
        cookie = f"{processes.COOKIE}={self.record.id}".encode()
        everyone = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
        members = {pid for pid in everyone if _is(pid, cookie)}
        return members | {pid for pid in self.record.pids.values() if _alive(pid)}

    def files(self) -> list[Path]:
        """The state directory and the lock."""
        return [path for path in (self.layout.directory, self.layout.lock) if path.exists()]

    def nothing(self) -> bool:
        """Whether there is neither."""
        return not self.processes() and not self.files()


def _is(pid: int, cookie: bytes) -> bool:
    try:
        return cookie in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def _member(remains: Remains) -> subprocess.Popen[bytes]:
    """A process such as a container might leave: of the cluster by its environment, but nobody's child."""
    environment = os.environ | {processes.COOKIE: remains.record.id}
    return subprocess.Popen(["sleep", "600"], env=environment, start_new_session=True)


def test_stop_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEEP_LOGS, str(tmp_path))
    cluster = Cluster.start()
    remains = Remains(cluster)
    with _member(remains):
        cluster.stop()
    assert remains.nothing()
    cluster.stop()
    kept = {path.name for path in (tmp_path / cluster.name / "logs").iterdir()}
    assert {"etcd.log", "kube-apiserver.log", "kube-controller-manager.log", "supervisor.log"} <= kept


@pytest.mark.parametrize("victim", ["supervisor", "keeper"])
def test_a_killed_guardian_takes_the_cluster_with_it(victim: str, eventually: Eventually) -> None:
    cluster = Cluster.start()
    remains = Remains(cluster)
    with _member(remains):
        os.kill(remains.record.pids[victim], signal.SIGKILL)
        eventually(lambda: not remains.files())
    cluster.stop()  # also collects the keeper, our child
    eventually(remains.nothing)


def test_after_both_guardians_are_killed_the_next_cluster_cleans_up(eventually: Eventually) -> None:
    cluster = Cluster.start()
    remains = Remains(cluster)
    with _member(remains) as member:
        # Stopped first, or one would see the other die and do its duty.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for guardian in ("keeper", "supervisor"):
                os.kill(remains.record.pids[guardian], number)
        cluster.stop()
        # Those with a parent in the cluster die by themselves at once.
        eventually(lambda: remains.processes() == {member.pid})
        remove_stale()
    assert remains.nothing()


_STARTER = """
import json, os, sys, time
from shadowfault_cluster import Cluster
cluster = Cluster.start(on_progress=lambda line: print(json.dumps(line), flush=True))
if "fork" in sys.argv and os.fork() == 0:
    time.sleep(600)
print(json.dumps({"name": cluster.name}), flush=True)
time.sleep(600)
"""


# A child that the starter forked holds the starter's end of every pipe open.
@pytest.mark.parametrize("how", ["alone", "fork"])
def test_a_killed_starter_takes_the_cluster_with_it(how: str, eventually: Eventually) -> None:
    command = [sys.executable, "-c", _STARTER, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as starter:
        assert starter.stdout is not None
        name = next(line["name"] for line in map(json.loads, starter.stdout) if "name" in line)
        remains = Remains(Cluster.attach(name))
        starter.kill()
        try:
            eventually(remains.nothing)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(starter.pid, signal.SIGKILL)


def test_ctrl_c_while_starting_leaves_nothing() -> None:
    name = f"ctrl-c-{os.getpid()}"
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + _STARTER.replace(
        "Cluster.start(", f"Cluster.start({name!r}, "
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        assert "starting etcd" in starter.stdout.readline()
        starter.send_signal(signal.SIGINT)
        _, errors = starter.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    layout = Layout.of(name)
    assert not layout.directory.exists()
    assert not layout.lock.exists()


def test_a_detached_cluster_outlives_its_starter_and_is_ended_by_its_name(eventually: Eventually) -> None:
    program = "from shadowfault_cluster import Cluster; print(Cluster.start(detach=True).name)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    cluster = Cluster.attach(run.stdout.strip())
    remains = Remains(cluster)
    assert cluster.kubectl("get", "--raw=/readyz").stdout == "ok"
    cluster.stop()
    eventually(remains.nothing)
