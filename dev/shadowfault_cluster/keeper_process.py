"""The keeper as seen by the process that starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from shadowfault_cluster.errors import ClusterError, ClusterStartError
from shadowfault_cluster.keeper import DETACH

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shadowfault_cluster.layout import Layout

# The keeper gives the supervisor 20 s, and itself 10 s to kill what is left.
_STOP_TIMEOUT_SECONDS = 40.0


class KeeperProcess:
    """A keeper that ends when we close our end of its life line, on purpose or by dying."""

    def __init__(self, layout: Layout, binaries: Path) -> None:
        status_read, status_write = os.pipe()
        life_read, self._life_write = os.pipe()
        self._life_open = True
        try:
            # A session of its own: Ctrl-C in a terminal is for the starter, who then ends the cluster.
            self._process = subprocess.Popen(  # noqa: S603 - our own argument list, no shell
                [
                    sys.executable,
                    "-P",  # nothing in the working directory stands for a module of ours
                    "-m",
                    "shadowfault_cluster.keeper",
                    f"--directory={layout.directory}",
                    f"--binaries={binaries}",
                    f"--status-fd={status_write}",
                    f"--life-fd={life_read}",
                    f"--starter={os.getpid()}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=status_write,
                stderr=status_write,
                pass_fds=(status_write, life_read),
                start_new_session=True,
            )
        except BaseException:
            os.close(status_read)
            self._cut()
            raise
        finally:
            os.close(status_write)
            os.close(life_read)
        self._status_read = status_read

    def wait_until_ready(self, on_progress: Callable[[str], None]) -> None:
        """Pass progress on until the cluster is ready; raises ClusterStartError when it ends instead."""
        other = []
        with os.fdopen(self._status_read, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    message: dict[str, Any] = json.loads(line)
                except ValueError:
                    other.append(line)
                    continue
                if "ready" in message:
                    return
                if "failed" in message:
                    raise ClusterStartError(message["failed"])
                on_progress(message["progress"])
        raise ClusterStartError(f"the local cluster ended while it was starting:\n{''.join(other)}".rstrip())

    def detach(self) -> None:
        os.write(self._life_write, DETACH)
        self._cut()
        self._process.returncode = 0  # not ours to wait for any more

    def stop(self) -> None:
        self._cut()
        try:
            self._process.wait(_STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise ClusterError("the local cluster did not end in time; it was killed") from None

    def _cut(self) -> None:
        if self._life_open:
            self._life_open = False
            os.close(self._life_write)
