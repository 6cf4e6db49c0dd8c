"""The cluster's certificates, judged by what verifies them: TLS itself."""

from __future__ import annotations

import ssl
import stat
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from shadowfault_cluster import pki
from shadowfault_cluster.network import Network

if TYPE_CHECKING:
    from pathlib import Path

NETWORK = Network(77)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the keys and certificates of one cluster."""
    folder = tmp_path_factory.mktemp("cluster") / "pki"
    pki.create(folder, pki.certificate_specs(NETWORK, "dev-node"))
    return folder


def _handshake(directory: Path, *, server: str, client: str, name: str) -> None:
    """Shake hands in memory, both sides checking the other's certificate; raises ssl.SSLError."""
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(directory / "ca.crt"))
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.load_cert_chain(directory / f"{server}.crt", directory / f"{server}.key")
    client_context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    client_context.load_cert_chain(directory / f"{client}.crt", directory / f"{client}.key")
    for context in (server_context, client_context):
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # Python 3.13's default
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client_context.wrap_bio(to_client, to_server, server_hostname=name),
        server_context.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    for end in ends:
        end.do_handshake()


@pytest.mark.parametrize(
    ("server", "client", "name"),
    [
        ("apiserver", "admin", "127.77.0.1"),
        ("apiserver", "controller-manager", "127.0.0.1"),
        ("apiserver", "agent", "kubernetes.default.svc"),
        ("apiserver", "admin", "127.77.20.1"),
        ("etcd", "apiserver-etcd", "127.77.0.1"),
        ("etcd", "etcd", "127.77.0.1"),
        ("kubelet-server", "kubelet-client", "127.77.0.10"),
        ("kubelet-server", "kubelet-client", "dev-node"),
    ],
)
def test_everyone_trusts_whom_they_must(directory: Path, server: str, client: str, name: str) -> None:
    _handshake(directory, server=server, client=client, name=name)


@pytest.mark.parametrize(
    ("server", "client", "name"),
    [
        ("kubelet-server", "admin", "127.77.0.1"),  # not its address
        ("admin", "admin", "127.77.0.1"),  # a client's certificate serves nothing
        ("etcd", "apiserver", "127.77.0.1"),  # a server's certificate is no client
    ],
)
def test_nobody_passes_for_another(directory: Path, server: str, client: str, name: str) -> None:
    with pytest.raises(ssl.SSLError):
        _handshake(directory, server=server, client=client, name=name)


def test_another_clusters_certificates_are_worth_nothing(directory: Path, tmp_path: Path) -> None:
    pki.create(tmp_path, pki.certificate_specs(NETWORK, "dev-node"))
    (tmp_path / "ca.crt").write_bytes((directory / "ca.crt").read_bytes())
    with pytest.raises(ssl.SSLError):
        _handshake(tmp_path, server="apiserver", client="admin", name="127.77.0.1")


def test_names_and_groups_are_those_that_rbac_knows(directory: Path) -> None:
    found = {}
    for path in directory.glob("*.crt"):
        subject = x509.load_pem_x509_certificate(path.read_bytes()).subject
        found[path.stem] = (
            subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value,
            [group.value for group in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)],
        )
    assert found["admin"] == ("kubernetes-admin", ["system:masters"])
    assert found["controller-manager"] == ("system:kube-controller-manager", [])
    assert [name for name, (_, groups) in found.items() if "system:masters" in groups] == ["admin"]


def test_keys_are_the_owners_only(directory: Path) -> None:
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.glob("*.key")}
    assert len(modes) >= 10
    assert set(modes.values()) == {0o600}
