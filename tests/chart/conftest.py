"""Fixtures of the chart's tests. Without helm they are skipped, and say so."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from shadowfault_testing.chart import VALUES, Helm


@pytest.fixture(scope="session")
def helm() -> Helm:
    for tool in ("helm", "kubectl"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on PATH: the chart was not tested")
    return Helm()


@pytest.fixture(scope="session", params=list(VALUES))
def rendered(request: pytest.FixtureRequest, helm: Helm) -> list[dict[str, Any]]:
    """All objects, for each of the sets of values."""
    return helm.objects(request.param)
