"""Errors of the local cluster. Each message says what happened and what to do about it."""

from __future__ import annotations


class ClusterError(Exception):
    """Something about the local cluster went wrong in a way a person can act on."""


class UnsupportedPlatformError(ClusterError):
    """The local cluster cannot work on this machine at all."""


class ControlPlaneUnavailableError(ClusterError):
    """The control plane's binaries are neither there nor could be built."""


class ClusterInUseError(ClusterError):
    """A cluster of that name already runs."""

    def __init__(self, name: str) -> None:
        """Say so, and what there is to choose from."""
        super().__init__(
            f"a local cluster named {name!r} is already running. Use it, end it with "
            f"`shadowfault cluster down --name {name}`, or start another one with --name OTHER"
        )


class ClusterNotFoundError(ClusterError):
    """No cluster of that name runs."""


class ClusterStartError(ClusterError):
    """The cluster did not become ready; the message carries the tail of what failed."""
