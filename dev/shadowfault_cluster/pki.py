"""The cluster's own certificate authority, and the keys everyone in it needs.

One CA per cluster and per start: nothing signed here outlives the state
directory, so nothing is ever rotated or revoked. What each certificate must
carry is laid down in "PKI certificates and requirements" of the Kubernetes
documentation: CN is the user name, O its groups, and client and server
certificates carry the matching extended key usage.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from shadowfault_cluster.network import Network

# Longer than any development cluster runs; a laptop may sleep for weeks in between.
_VALIDITY = dt.timedelta(days=365)
# A clock that was just set back must not make a fresh certificate "not yet valid".
_BACKDATE = dt.timedelta(minutes=10)


@dataclass(frozen=True)
class CertificateSpec:
    """One certificate: its file name, the subject, and the addresses it serves (none: a client)."""

    name: str
    common_name: str
    organizations: tuple[str, ...] = ()
    server_names: tuple[str, ...] = ()
    client: bool = True


AGENT_USER = "shadowfault:node-agent"


def certificate_specs(network: Network, node_name: str) -> list[CertificateSpec]:
    """Every certificate of a cluster on `network`."""
    local = ("127.0.0.1", "localhost", str(network.control_plane))
    kubernetes = (
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        str(network.kubernetes_service),
    )
    return [
        # etcd dials its own listeners, as a peer too: server and client in one.
        CertificateSpec("etcd", "etcd", server_names=local),
        CertificateSpec("apiserver-etcd", "kube-apiserver-etcd-client"),
        CertificateSpec("apiserver", "kube-apiserver", server_names=local + kubernetes, client=False),
        CertificateSpec("kubelet-client", "kube-apiserver-kubelet-client"),
        CertificateSpec(
            "kubelet-server",
            f"system:node:{node_name}",
            ("system:nodes",),
            server_names=(str(network.kubelet), node_name),
            client=False,
        ),
        CertificateSpec("controller-manager", "system:kube-controller-manager"),
        CertificateSpec("admin", "kubernetes-admin", ("system:masters",)),
        # Not system:masters: what the agent may do is spelled out in a ClusterRole (see bootstrap).
        CertificateSpec("agent", AGENT_USER),
    ]


def create(directory: Path, specs: Sequence[CertificateSpec]) -> None:
    """Write a new CA, every certificate of `specs` and the service account key pair into `directory`.

    Keys are readable by their owner only.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shadowfault local cluster")])
    ca_certificate = _build(
        subject=ca_name,
        public_key=ca_key.public_key(),
        issuer=ca_name,
        signing_key=ca_key,
        extensions=[
            (x509.BasicConstraints(ca=True, path_length=0), True),
            (_key_usage(signs_certificates=True), True),
            (x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False),
        ],
    )
    _write_key(directory / "ca.key", ca_key)
    _write_certificate(directory / "ca.crt", ca_certificate)
    for spec in specs:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _build(
            subject=_subject(spec),
            public_key=key.public_key(),
            issuer=ca_name,
            signing_key=ca_key,
            extensions=_leaf_extensions(spec, ca_key.public_key()),
        )
        _write_key(directory / f"{spec.name}.key", key)
        _write_certificate(directory / f"{spec.name}.crt", certificate)
    service_accounts = ec.generate_private_key(ec.SECP256R1())
    _write_key(directory / "sa.key", service_accounts)
    (directory / "sa.pub").write_bytes(
        service_accounts.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def _subject(spec: CertificateSpec) -> x509.Name:
    return x509.Name(
        [
            *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in spec.organizations),
            x509.NameAttribute(NameOID.COMMON_NAME, spec.common_name),
        ]
    )


def _leaf_extensions(
    spec: CertificateSpec, ca_public_key: ec.EllipticCurvePublicKey
) -> list[tuple[x509.ExtensionType, bool]]:
    usages = []
    if spec.server_names:
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    if spec.client:
        usages.append(ExtendedKeyUsageOID.CLIENT_AUTH)
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(signs_certificates=False), True),
        (x509.ExtendedKeyUsage(usages), False),
        # Without it, Python's VERIFY_X509_STRICT (the default from 3.13 on) refuses the chain.
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_public_key), False),
    ]
    if spec.server_names:
        names = [_general_name(name) for name in spec.server_names]
        extensions.append((x509.SubjectAlternativeName(names), False))
    return extensions


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _build(
    *,
    subject: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    signing_key: ec.EllipticCurvePrivateKey,
    extensions: list[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + _VALIDITY)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signing_key, hashes.SHA256())


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        # SEC 1 for Go's service account signer, which takes "EC PRIVATE KEY" and PKCS #8 alike.
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(pem)


def _write_certificate(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
