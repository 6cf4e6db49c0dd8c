"""The control plane's binaries: whose they are and whether all are there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from shadowfault_cluster import builder, cache
from shadowfault_cluster.components import APISERVER, CONTROLLER_MANAGER, ETCD, KUBECTL
from shadowfault_cluster.errors import ControlPlaneUnavailableError

if TYPE_CHECKING:
    from shadowfault_cluster.progress import Reporter

BINARIES = (ETCD, APISERVER, CONTROLLER_MANAGER, KUBECTL)
# The convention of controller-runtime's envtest.
ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"


def missing(directory: Path) -> list[str]:
    """The binaries that `directory` lacks or that are not executable."""
    return [name for name in BINARIES if not os.access(directory / name, os.X_OK)]


def available() -> bool:
    """Whether `ensure` would return at once."""
    return bool(os.environ.get(ASSETS_VARIABLE)) or not missing(cache.directory())


def ensure(reporter: Reporter) -> Path:
    """Return a folder with every binary, building them first where nobody brought any.

    Raises ControlPlaneUnavailableError.
    """
    given = os.environ.get(ASSETS_VARIABLE)
    if given:
        return from_variable(Path(given))
    directory = cache.directory()
    if not directory.exists():
        builder.build(directory, reporter)
    lacking = missing(directory)
    if lacking:
        raise ControlPlaneUnavailableError(
            f"{', '.join(lacking)} went missing from {directory}. Remove that folder "
            f"(rm -r {directory}) and run the same command again to have them built"
        )
    return directory


def from_variable(directory: Path) -> Path:
    """Check a folder that the user names. Raises ControlPlaneUnavailableError saying what it lacks."""
    lacking = missing(directory)
    if not lacking:
        return directory.resolve()
    hint = ""
    if CONTROLLER_MANAGER in lacking and len(lacking) < len(BINARIES):
        hint = " setup-envtest does not ship kube-controller-manager, which Deployments and Jobs need;"
    raise ControlPlaneUnavailableError(
        f"{ASSETS_VARIABLE}={directory} lacks {', '.join(lacking)} (or they are not executable).{hint} "
        f"put the missing ones of the same Kubernetes version there, or unset {ASSETS_VARIABLE} to have "
        "everything built"
    )
