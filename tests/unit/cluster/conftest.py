"""What the local cluster's unit tests share: an empty cache, stand-ins for Go, and waiting for processes."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from shadowfault_testing.fake_go import FakeGo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty XDG_CACHE_HOME, and no KUBEBUILDER_ASSETS."""
    home = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return home


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Give a function that waits until a condition holds, and fails when it does not within 20 s."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true within 20 s"
            time.sleep(0.01)

    return wait


@pytest.fixture
def fake_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGo:
    """Put a stand-in for Go first on PATH."""
    folder = tmp_path / "fake-go"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    fake = FakeGo(folder / "go")
    fake.behave()
    return fake
