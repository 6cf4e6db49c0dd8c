"""What went wrong with a build, and what to do about it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, NamedTuple

from shadowfault_cluster.errors import ControlPlaneUnavailableError
from shadowfault_cluster.runner import tail

if TYPE_CHECKING:
    from pathlib import Path

# Measured for one build from nothing: 0.8 GB of modules, 3 GB in Go's build cache, 0.3 GB of binaries.
_NEEDED_BYTES = 4 * 1024**3


class _Cause(NamedTuple):
    signs: tuple[str, ...]
    advice: str


# The first match counts: a full disk breaks downloads too.
_CAUSES = (
    _Cause(
        signs=("no space left on device", "disk quota exceeded"),
        advice="The disk is full. Free about 4 GB (see `df -h`), then run the same command again.",
    ),
    _Cause(
        signs=("checksum mismatch", "SECURITY ERROR"),
        advice="A module is not what go.sum says it must be, so nothing was run. "
        "Ask whoever runs your Go proxy (`go env GOPROXY`), or try another network.",
    ),
    _Cause(
        signs=(
            "dial tcp",
            "no such host",
            "i/o timeout",
            "connection refused",
            "connection reset",
            "proxyconnect",
            "TLS handshake",
            "x509:",
            "module lookup disabled",
            "Forbidden",
            "Bad Gateway",
        ),
        advice="Go could not download the modules. Check the network; behind a company proxy set "
        "HTTPS_PROXY or GOPROXY. Then run the same command again: what has been downloaded is kept.",
    ),
    _Cause(
        signs=("signal: killed", "cannot allocate memory", "out of memory"),
        advice="The machine ran out of memory. Close other programs, or set GOMAXPROCS=1, "
        "and run the same command again: what has been compiled is kept.",
    ),
)
_OTHERWISE = (
    "Run the same command again: what has been compiled is kept. If it fails in the same way, set "
    "KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver, kube-controller-manager and kubectl 1.34."
)


def advice(log: str) -> str:
    """What to do about a build that ended with this output."""
    for cause in _CAUSES:
        if any(sign in log for sign in cause.signs):
            return cause.advice
    return _OTHERWISE


def explain(what: str, log: Path) -> ControlPlaneUnavailableError:
    """The error for a failed step whose output is in `log`."""
    return ControlPlaneUnavailableError(
        f"{what}; nothing was left in the cache. {advice(tail(log, 200))}\nThe end of {log}:\n{tail(log)}"
    )


def require_disk_space(directory: Path) -> None:
    """Raise ControlPlaneUnavailableError where a build would fill the disk."""
    free = shutil.disk_usage(directory).free
    if free < _NEEDED_BYTES:
        raise ControlPlaneUnavailableError(
            f"building the control plane takes about {_NEEDED_BYTES / 1024**3:.0f} GB in {directory}, and "
            f"{free / 1024**3:.1f} GB are free. Free some, or set XDG_CACHE_HOME to a folder on another disk"
        )
