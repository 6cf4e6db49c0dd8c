"""A cluster's own slice of the loopback network.

Every cluster owns one 127.X.0.0/16, so two clusters never share an address and
need no port bookkeeping between them. The claim is an abstract UNIX socket: it
is machine-wide like the loopback addresses themselves (both belong to the
network namespace), taken atomically, and gone with its last holder, however
that ended. A lock file in a user's cache would know of one user's clusters only.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from dataclasses import dataclass

from shadowfault_cluster.errors import ClusterError

# 127.0/16 is everyone's, 127.1/16 a habit of many; 250 leaves the top to others.
FIRST, LAST = 16, 250


@dataclass(frozen=True)
class Network:
    """The addresses inside one 127.X.0.0/16."""

    index: int

    @property
    def cidr(self) -> ipaddress.IPv4Network:
        """The whole range."""
        return ipaddress.IPv4Network(f"127.{self.index}.0.0/16")

    @property
    def control_plane(self) -> ipaddress.IPv4Address:
        """Where etcd and the API server listen."""
        return self._address(0, 1)

    @property
    def kubelet(self) -> ipaddress.IPv4Address:
        """The node's address, where the agent serves the kubelet API."""
        return self._address(0, 10)

    @property
    def pods(self) -> ipaddress.IPv4Network:
        """Pod addresses."""
        return ipaddress.IPv4Network(f"127.{self.index}.10.0/24")

    @property
    def services(self) -> ipaddress.IPv4Network:
        """Service addresses (clusterIP)."""
        return ipaddress.IPv4Network(f"127.{self.index}.20.0/24")

    @property
    def kubernetes_service(self) -> ipaddress.IPv4Address:
        """The address of the Service `kubernetes`: by rule the first of the range."""
        return self.services[1]

    def _address(self, third: int, fourth: int) -> ipaddress.IPv4Address:
        return ipaddress.IPv4Address(f"127.{self.index}.{third}.{fourth}")


@dataclass(frozen=True)
class NetworkClaim:
    """A network that is ours for as long as `socket` is open in any process."""

    network: Network
    socket: socket.socket

    def release(self) -> None:
        """Give up this process's hold."""
        self.socket.close()


def claim_network(first: int = FIRST, last: int = LAST) -> NetworkClaim:
    """Claim the lowest free 127.X.0.0/16 with first <= X <= last.

    Raises ClusterError when every one is taken.
    """
    for index in range(first, last + 1):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claim.bind(f"\0shadowfault-network-{index}")
        except OSError as error:
            claim.close()
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        return NetworkClaim(Network(index), claim)
    raise ClusterError(
        f"all of 127.{first}.0.0/16 to 127.{last}.0.0/16 are claimed by local clusters; "
        "end some: `shadowfault cluster status` lists yours, `shadowfault cluster down --name NAME` ends one"
    )


def free_port(address: ipaddress.IPv4Address, preferred: int) -> int:
    """Return `preferred`, or the next thousand up, that is free on `address`.

    The address is ours, so only a listener on 0.0.0.0 can be in the way (a real
    kubelet or etcd on this machine); fixed ports outside the ephemeral range
    leave no race with anyone's outgoing connections. Raises ClusterError.
    """
    candidates = range(preferred, 32768, 1000)
    for port in candidates:
        if can_bind(address, port):
            return port
    raise ClusterError(f"no free port on {address}: tried {', '.join(map(str, candidates))}")


def can_bind(address: ipaddress.IPv4Address, port: int) -> bool:
    """Whether a listener could be opened on address:port now; port 0 asks about the address alone."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((str(address), port))
        except OSError:
            return False
    return True
