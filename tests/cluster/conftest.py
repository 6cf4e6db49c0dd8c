"""The real API server, shared by every cluster test of a session."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from shadowfault_cluster import Cluster
from shadowfault_testing.admission import ApiServer, install

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running cluster with a random name; tests keep apart by namespaces of their own."""
    with Cluster.start(on_progress=lambda message: print(message, file=sys.stderr)) as running:  # noqa: T201
        yield running


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Iterator[ApiServer]:
    """Its API server, with our definitions and policies."""
    install(cluster)
    with ApiServer(cluster) as server:
        yield server


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Any]:
    """Give a function that returns a condition's first true value; it fails when there is none in 60 s."""

    def wait(condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 60
        while not (value := condition()):
            assert time.monotonic() < deadline, "the condition did not come true within 60 s"
            time.sleep(0.05)
        return value

    return wait
