"""Where built control planes are kept: one folder per pinned module and platform."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

from shadowfault_cluster import support
from shadowfault_cluster.layout import cache_root


def module_directory() -> Path:
    """The pinned Go module, as shipped in this package."""
    return Path(str(resources.files("shadowfault_cluster"))) / "controlplane"


def key(module: Path, platform: str) -> str:
    """The name of a build: a checksum over go.mod, go.sum (which pin every line of code) and the platform."""
    digest = hashlib.sha256()
    for content in ((module / "go.mod").read_bytes(), (module / "go.sum").read_bytes(), platform.encode()):
        digest.update(len(content).to_bytes(8, "big"))
        digest.update(content)
    return digest.hexdigest()[:16]


def root() -> Path:
    """The folder that holds every built control plane."""
    return cache_root() / "controlplane"


def directory() -> Path:
    """Where this version's binaries are, or will be once they are built."""
    return root() / key(module_directory(), f"linux/{support.go_architecture()}")
