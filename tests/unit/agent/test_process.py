"""Real processes: exit codes, output, groups, the death signal."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shadowfault_cluster.agent.process import Process, StartError, Surroundings, kill_marked

if TYPE_CHECKING:
    from collections.abc import Callable

MARK = "SHADOWFAULT_TEST_MARK"


class Output:
    """What a process printed."""

    def __init__(self) -> None:
        self.text: dict[str, bytes] = {"stdout": b"", "stderr": b""}

    def __call__(self, stream: str, data: bytes) -> None:
        self.text[stream] += data


def start(script: str, output: Output, tmp_path: Path, **environment: str) -> Process:
    surroundings = Surroundings({"PATH": os.defpath, **environment}, tmp_path)
    return Process.start(["sh", "-c", script], surroundings, output)


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - other processes set no asyncio.Event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
)
async def test_exit_codes(script: str, code: int, tmp_path: Path) -> None:
    assert await start(script, Output(), tmp_path).wait() == code


async def test_all_output_is_there_when_it_has_ended(tmp_path: Path) -> None:
    output = Output()
    await start("pwd; echo $NAME; echo bad >&2; head -c 1000000 /dev/zero", output, tmp_path, NAME="x").wait()
    assert output.text["stdout"].startswith(f"{tmp_path}\nx\n".encode())
    assert output.text["stdout"].count(b"\0") == 1_000_000
    assert output.text["stderr"] == b"bad\n"


async def test_stop_is_polite_first(tmp_path: Path) -> None:
    output = Output()
    process = start("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done", output, tmp_path)
    await until(lambda: output.text["stdout"] == b"up\n")
    assert await process.stop(10) == 0
    assert output.text["stdout"] == b"up\nbye\n"

    deaf = Output()
    process = start("trap '' TERM; echo up; while :; do sleep 0.01; done", deaf, tmp_path)
    await until(lambda: deaf.text["stdout"] == b"up\n")
    assert await process.stop(0.1) == 137


async def test_the_group_ends_with_its_leader(tmp_path: Path) -> None:
    output = Output()
    await start("sleep 600 & echo $!", output, tmp_path).wait()
    await until(lambda: not is_alive(int(output.text["stdout"])))


async def test_what_left_the_group_is_found_by_its_mark(tmp_path: Path) -> None:
    output = Output()
    script = "setsid sh -c 'echo $$; exec sleep 600' & wait"
    process = start(script, output, tmp_path, **{MARK: "one/two"})
    await until(lambda: output.text["stdout"].endswith(b"\n"))
    await process.stop(0)
    pid = int(output.text["stdout"])
    assert kill_marked(f"{MARK}=one/other") == 0
    assert is_alive(pid)
    assert kill_marked(f"{MARK}=one/") == 1
    await until(lambda: not is_alive(pid))


@pytest.mark.parametrize(
    ("command", "directory", "words"),
    [
        ("no-such-command", ".", "No such file or directory"),
        ("/etc", ".", "Permission denied"),
        ("true", "/no/such/place", "/no/such/place does not exist"),
    ],
)
async def test_what_cannot_start_says_why(command: str, directory: str, words: str) -> None:
    with pytest.raises(StartError, match=words):
        Process.start([command], Surroundings({"PATH": os.defpath}, Path(directory)), Output())


AGENT = """
import asyncio, os, sys
from pathlib import Path
from shadowfault_cluster.agent.process import Process, Surroundings
async def main():
    process = Process.start(["sleep", "600"], Surroundings({"PATH": os.defpath}, Path("/")), print)
    print(process.pid, flush=True)
    await process.wait()
asyncio.run(main())
"""


async def test_a_process_dies_with_its_agent() -> None:
    with subprocess.Popen(  # noqa: ASYNC220 - the loop has nothing else to do
        [sys.executable, "-c", AGENT], stdout=subprocess.PIPE
    ) as agent:
        assert agent.stdout is not None
        child = int(agent.stdout.readline())
        assert is_alive(child)
        agent.send_signal(signal.SIGKILL)
    await until(lambda: not is_alive(child))
