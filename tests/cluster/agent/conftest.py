"""A namespace per test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from shadowfault_testing.pods import PodGround

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shadowfault_cluster import Cluster


@pytest.fixture
def ground(cluster: Cluster, eventually: Callable[[Callable[[], Any]], Any]) -> Iterator[PodGround]:
    """A namespace of the test's own, ready for pods."""
    namespace = f"agent-{uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", namespace)
    place = PodGround(cluster, namespace, eventually)
    eventually(lambda: place.get("serviceaccount", "default"))
    yield place
    cluster.kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found")
