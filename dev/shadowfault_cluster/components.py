"""The command line of each control plane process, and why each flag is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from shadowfault_cluster.layout import Layout
    from shadowfault_cluster.network import Network

ETCD = "etcd"
APISERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"
AGENT = "node-agent"
KUBECTL = "kubectl"

# Who aims what: the annotations that admission policies leave are seen nowhere else.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {
            "level": "Metadata",
            "verbs": ["create", "update", "patch"],
            "resources": [
                {"group": "chaos.shadowfault.dev", "resources": ["chaosexperiments", "chaosschedules"]}
            ],
        },
        {"level": "None"},
    ],
}

# The default port first; the next thousands when something listens there on 0.0.0.0.
ETCD_PORT, ETCD_PEER_PORT, APISERVER_PORT, KUBELET_PORT = 2379, 2380, 6443, 10250


@dataclass(frozen=True)
class Ports:
    """The ports on the cluster's own control plane address."""

    etcd: int
    etcd_peer: int
    apiserver: int


@dataclass(frozen=True)
class ControlPlane:
    """Everything the command lines depend on."""

    layout: Layout
    network: Network
    ports: Ports
    binaries: Path

    @property
    def apiserver_url(self) -> str:
        """Where clients find the API server."""
        return f"https://{self.network.control_plane}:{self.ports.apiserver}"

    @property
    def etcd_url(self) -> str:
        """Where the API server finds etcd."""
        return f"https://{self.network.control_plane}:{self.ports.etcd}"

    def etcd(self) -> list[str]:
        """The command line of etcd: TLS both ways, or any local user could write to the cluster."""
        pki = self.layout.pki
        peer_url = f"https://{self.network.control_plane}:{self.ports.etcd_peer}"
        return [
            str(self.binaries / ETCD),
            "--name=default",
            f"--data-dir={self.layout.etcd}",
            f"--listen-client-urls={self.etcd_url}",
            f"--advertise-client-urls={self.etcd_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            f"--cert-file={pki}/etcd.crt",
            f"--key-file={pki}/etcd.key",
            f"--trusted-ca-file={pki}/ca.crt",
            "--client-cert-auth",
            f"--peer-cert-file={pki}/etcd.crt",
            f"--peer-key-file={pki}/etcd.key",
            f"--peer-trusted-ca-file={pki}/ca.crt",
            "--peer-client-cert-auth",
            # The data goes with the cluster; a killed process loses nothing, only a dead machine would.
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def apiserver(self) -> list[str]:
        """The command line of the API server."""
        pki = self.layout.pki
        return [
            str(self.binaries / APISERVER),
            f"--etcd-servers={self.etcd_url}",
            f"--etcd-cafile={pki}/ca.crt",
            f"--etcd-certfile={pki}/apiserver-etcd.crt",
            f"--etcd-keyfile={pki}/apiserver-etcd.key",
            f"--bind-address={self.network.control_plane}",
            f"--advertise-address={self.network.control_plane}",
            f"--secure-port={self.ports.apiserver}",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--client-ca-file={pki}/ca.crt",
            # No Node authorizer: it narrows what a *kubelet* may read, and there is none. The agent's
            # rights are a ClusterRole of ours; pods and people meet the same RBAC as anywhere.
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            f"--service-cluster-ip-range={self.network.services}",
            # Endpoints refuse loopback addresses (ValidateEndpointIP), the API server's own included.
            "--endpoint-reconciler-type=none",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki}/sa.pub",
            f"--service-account-signing-key-file={pki}/sa.key",
            # `kubectl logs` and `kubectl exec`: the API server is a client of the node agent.
            f"--kubelet-certificate-authority={pki}/ca.crt",
            f"--kubelet-client-certificate={pki}/kubelet-client.crt",
            f"--kubelet-client-key={pki}/kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP",
            # `kubectl exec`: pass the client's WebSocket on to the agent instead of translating it to SPDY.
            "--feature-gates=TranslateStreamCloseWebsocketRequests=false",
            f"--audit-policy-file={self.layout.audit_policy}",
            f"--audit-log-path={self.layout.audit_log}",
            "--profiling=false",
        ]

    def controller_manager(self) -> list[str]:
        """The command line of the controller manager."""
        pki = self.layout.pki
        # Endpoints refuse loopback addresses, so the agent balances over ready pods itself. The others
        # serve volumes and clouds that are not here.
        disabled = (
            "endpoints-controller",
            "endpointslice-controller",
            "endpointslice-mirroring-controller",
            "node-ipam-controller",
            "persistentvolume-attach-detach-controller",
            "persistentvolume-expander-controller",
        )
        return [
            str(self.binaries / CONTROLLER_MANAGER),
            f"--kubeconfig={self.layout.controller_manager_kubeconfig}",
            "--leader-elect=false",  # there is one, and an election would cost its lease time on each start
            "--secure-port=0",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={pki}/sa.key",
            f"--root-ca-file={pki}/ca.crt",
            f"--controllers={','.join(['*', *(f'-{name}' for name in disabled)])}",
            # Starting the controllers is a few hundred requests: the default of 20 a second takes 4 s.
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            "--profiling=false",
        ]
