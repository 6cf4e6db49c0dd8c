"""A network of its own for each cluster, and ports nobody else holds."""

from __future__ import annotations

import socket
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowfault_cluster import network
from shadowfault_cluster.components import ControlPlane, Ports
from shadowfault_cluster.errors import ClusterError
from shadowfault_cluster.layout import Layout
from shadowfault_cluster.network import Network, claim_network

# Beyond the range that real clusters claim from, so that none is in the way.
FIRST = network.LAST + 1


def test_claims_do_not_meet() -> None:
    one, other = claim_network(FIRST, FIRST + 1), claim_network(FIRST, FIRST + 1)
    try:
        assert [one.network.index, other.network.index] == [FIRST, FIRST + 1]
        with pytest.raises(ClusterError, match="are claimed by local clusters"):
            claim_network(FIRST, FIRST + 1)
    finally:
        one.release()
        other.release()


def test_a_claim_ends_with_its_last_holder() -> None:
    claim = claim_network(FIRST, FIRST)
    descriptor = claim.socket.fileno()
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(descriptor,)
    ) as child:
        claim.release()
        with pytest.raises(ClusterError):
            claim_network(FIRST, FIRST)
        child.kill()
    claim_network(FIRST, FIRST).release()


@given(st.integers(network.FIRST, network.LAST))
def test_every_address_is_in_the_clusters_own_range(index: int) -> None:
    addresses = Network(index)
    assert addresses.cidr.is_loopback
    for address in (addresses.control_plane, addresses.kubelet, addresses.kubernetes_service):
        assert address in addresses.cidr
    for subnet in (addresses.pods, addresses.services):
        assert subnet.subnet_of(addresses.cidr)
    assert not addresses.pods.overlaps(addresses.services)
    assert addresses.kubernetes_service in addresses.services


@given(st.integers(network.FIRST, network.LAST))
def test_the_control_plane_listens_nowhere_else(index: int) -> None:
    plane = ControlPlane(Layout(Path("/c/dev")), Network(index), Ports(1, 2, 3), Path("/bin"))
    for argv in (plane.etcd(), plane.apiserver()):
        listening = [flag.partition("=")[2] for flag in argv if "listen" in flag or "bind-address" in flag]
        assert listening
        for value in listening:
            host = value.removeprefix("https://").partition(":")[0]
            assert IPv4Address(host) == Network(index).control_plane
    assert "--secure-port=0" in plane.controller_manager()


def test_a_port_taken_on_every_address_is_passed_over() -> None:
    address = Network(FIRST).control_plane
    with socket.socket() as everywhere:
        everywhere.bind(("0.0.0.0", 0))  # noqa: S104 - like a real kubelet; nothing is served
        everywhere.listen()
        taken = everywhere.getsockname()[1]
        assert not network.can_bind(address, taken)
        if taken < 31768:
            assert network.free_port(address, taken) == taken + 1000
        with pytest.raises(ClusterError, match="no free port"):
            network.free_port(address, taken) if taken >= 31768 else network.free_port(address, 32768)
