"""No child outlives its parent, and nothing of a cluster outlives the cluster."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shadowfault_cluster import processes, runner, tether

if TYPE_CHECKING:
    from collections.abc import Callable

    Eventually = Callable[[Callable[[], bool]], None]


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def _parent_that_prints_its_childs_pid(program: str) -> tuple[subprocess.Popen[str], int]:
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


_SPAWN = """
import pathlib, signal, time
from shadowfault_cluster import processes
child = processes.spawn(
    ["sleep", "600"],
    log=pathlib.Path("/dev/null"),
    environment={"PATH": "/usr/bin:/bin"},
    death_signal=signal.SIGKILL,
)
print(child.pid, flush=True)
time.sleep(600)
"""
_TETHER = f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-I", "-S", {tether.__file__!r}, str(os.getpid()), "sleep", "600"])
while open(f"/proc/{{child.pid}}/comm").read() != "sleep\\n":  # tied once it has become the command
    time.sleep(0.01)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("program", [_SPAWN, _TETHER], ids=["spawn", "tether"])
def test_a_child_dies_with_its_killed_parent(program: str, eventually: Eventually) -> None:
    parent, child = _parent_that_prints_its_childs_pid(program)
    with parent:
        assert _alive(child)
        parent.kill()
    eventually(lambda: not _alive(child))


def test_members_are_found_by_their_cookie_and_others_left_alone() -> None:
    mine, other = secrets.token_hex(8), secrets.token_hex(8)
    with (
        subprocess.Popen(["sleep", "600"], env=os.environ | {processes.COOKIE: mine}) as member,
        subprocess.Popen(["sleep", "600"], env=os.environ | {processes.COOKIE: other}) as stranger,
    ):
        try:
            assert processes.kill_members(mine) == []
            assert not _alive(member.pid)
            assert _alive(stranger.pid)
        finally:
            stranger.kill()


# The middle process starts one without any environment, in a session of its own, and ends.
_MIDDLE = """
import subprocess
child = subprocess.Popen(["/bin/sleep", "600"], env={}, start_new_session=True, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
"""
_REAPER = """
import subprocess, sys
from shadowfault_cluster import processes
processes.become_subreaper()
subprocess.run([sys.executable, "-W", "ignore", "-c", sys.argv[1]], check=True)
input()
print(processes.kill_members("none", descendants=True))
"""


def test_a_subreaper_finds_orphans_that_cleared_their_environment() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _REAPER, _MIDDLE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reaper:
        assert reaper.stdout is not None
        orphan = int(reaper.stdout.readline())
        assert _alive(orphan)
        output, _ = reaper.communicate("\n", timeout=20)
    assert output == "[]\n"
    assert not _alive(orphan)


def test_children_get_the_cookie_and_no_pointer_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "HTTPS_PROXY", "http_proxy", "no_proxy"):
        monkeypatch.setenv(name, "elsewhere")
    environment = processes.child_environment("abc")
    assert environment[processes.COOKIE] == "abc"
    assert "elsewhere" not in environment.values()
    assert environment["PATH"] == os.environ["PATH"]


def test_restarts_back_off_and_then_give_up() -> None:
    delays = [runner.restart_delay(exits) for exits in range(1, 7)]
    assert delays == [0.2, 0.4, 0.8, 1.6, None, None]


def test_the_tail_of_a_long_log_is_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 200_000 + b"\n\xff one\ntwo\n")
    assert runner.tail(log, 2) == "� one\ntwo"
    assert runner.tail(tmp_path / "none") == ""


def test_an_exit_is_told_in_words(tmp_path: Path) -> None:
    process = runner.ManagedProcess("etcd", [], tmp_path / "log", {})
    process.exit_status = -signal.SIGKILL
    assert process.describe_exit().startswith("etcd was killed by SIGKILL")
    process.exit_status = 2
    assert process.describe_exit().startswith("etcd exited with status 2")
