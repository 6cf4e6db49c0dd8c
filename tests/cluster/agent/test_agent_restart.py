"""The agent is killed, and another takes over: nothing of the old one runs, every pod runs again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shadowfault_cluster import Cluster
from shadowfault_testing.pods import PodGround, fetch, server_container, shell_container

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

pytestmark = pytest.mark.cluster


@pytest.fixture
def alone(eventually: Callable[[Callable[[], Any]], Any]) -> Iterator[PodGround]:
    """A cluster of the test's own: other tests need their agent alive."""
    with Cluster.start() as cluster:
        place = PodGround(cluster, "default", eventually)
        eventually(lambda: place.get("serviceaccount", "default"))
        yield place


def living(marker: str) -> list[Path]:
    """The processes with `marker` on their command line, zombies aside."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and marker.encode() in (entry / "cmdline").read_bytes().replace(
                b"\0", b" "
            ):
                found.append(entry)
        except OSError:
            continue
    return found


def test_pods_survive_the_agent(alone: PodGround) -> None:
    marker = f"sleep 77{abs(hash(alone.cluster.name)) % 10**8}"
    alone.pod("web", server_container())
    alone.pod("family", shell_container(f"setsid {marker} & {marker}"))
    alone.pod("once", shell_container(f"exec {marker}1"), restartPolicy="Never")
    alone.pod("done", shell_container("echo result"), restartPolicy="Never")
    address = alone.wait_ready("web")["status"]["podIP"]
    alone.wait_ready("once")
    alone.wait_phase("done", "Succeeded")
    alone.eventually(lambda: len(living(f"{marker}")) >= 3)
    before = set(living(marker))

    alone.cluster.stop_component("node-agent", kill=True)
    alone.eventually(lambda: fetch(f"{address}:8080") is None)
    alone.pod("meanwhile", server_container())
    alone.kubectl("delete", "pod", "family", "--wait=false")
    alone.cluster.start_component("node-agent")

    alone.wait_gone("pod", "family")
    alone.eventually(lambda: not before & set(living(marker)))
    alone.wait_phase("once", "Failed")
    terminated = alone.container("once")["state"]["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (137, "ContainerStatusUnknown")
    alone.eventually(lambda: alone.container("web").get("restartCount") == 1)
    alone.eventually(lambda: fetch(f"{address}:8080") == "web")
    other = alone.wait_ready("meanwhile")["status"]["podIP"]
    assert other != address
    assert alone.kubectl("logs", "done") == "result\n"


def test_a_node_that_was_given_up_becomes_ready_again(alone: PodGround) -> None:
    node = alone.cluster.record.node_name
    unknown = '{"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}'
    alone.kubectl("patch", "node", node, "--subresource=status", f"--patch={unknown}")
    assert alone.condition("node", node, "Ready")["status"] == "Unknown"
    alone.eventually(lambda: alone.condition("node", node, "Ready")["status"] == "True")
    alone.kubectl("delete", "node", node)
    alone.eventually(lambda: alone.get("node", node))
