"""A pod's service account token, as the kubeconfig its processes find in KUBECONFIG.

A kubelet mounts the token at /var/run/secrets/kubernetes.io/serviceaccount;
processes without a mount namespace get the same token by other means.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
from typing import TYPE_CHECKING

from shadowfault_cluster.agent.api import ApiError, ApiUnavailableError
from shadowfault_cluster.agent.objects import Json, name_of, namespace_of, parse_timestamp, uid_of, utcnow

if TYPE_CHECKING:
    from pathlib import Path

    from shadowfault_cluster.agent.context import PodContext

_log = logging.getLogger(__name__)
_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
# The kubelet renews at 80 % of the lifetime.
_RENEW_AT = 0.8


class TokenKeeper:
    """Fetches the token of one pod and renews it in time."""

    def __init__(self, context: PodContext, projection: Json) -> None:
        """`projection` is the serviceAccountToken source of the pod's token volume."""
        self._context = context
        self._projection = projection

    async def run(self, ready: asyncio.Event) -> None:
        """Write the files, set `ready`, and renew them forever."""
        failures = 0
        while True:
            try:
                lifetime = await self._renew()
            except (ApiError, ApiUnavailableError) as error:
                if failures == 0:
                    account = self._context.pod["spec"].get("serviceAccountName", "default")
                    message = f"no token for service account {account} yet: {error}"
                    self._context.node.events.warning(self._context.pod, "FailedTokenRequest", message)
                await asyncio.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])
                failures += 1
                continue
            failures = 0
            ready.set()
            await asyncio.sleep(max(1.0, lifetime * _RENEW_AT))

    async def _renew(self) -> float:
        """Write a fresh token; returns for how many seconds it is valid."""
        pod = self._context.pod
        account = pod["spec"].get("serviceAccountName", "default")
        audience = self._projection.get("audience")
        bound_to = {"kind": "Pod", "apiVersion": "v1", "name": name_of(pod), "uid": uid_of(pod)}
        request = {
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": self._projection.get("expirationSeconds", 3600),
                "boundObjectRef": bound_to,
            }
        }
        path = f"/api/v1/namespaces/{namespace_of(pod)}/serviceaccounts/{account}/token"
        answer = (await self._context.node.client.post(path, request))["status"]
        directory = self._context.credentials
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(directory / "token", answer["token"])
        _write(directory / "kubeconfig", json.dumps(self._kubeconfig(answer["token"]), indent=2))
        return (parse_timestamp(answer["expirationTimestamp"]) - utcnow()).total_seconds()

    def _kubeconfig(self, token: str) -> Json:
        config = self._context.node.config
        authority = base64.b64encode((config.pki / "ca.crt").read_bytes()).decode()
        cluster = {"server": config.apiserver, "certificate-authority-data": authority}
        # tokenFile for clients that read it again (client-go prefers it), token for those that cannot.
        user = {"tokenFile": str(self._context.credentials / "token"), "token": token}
        context = {"cluster": "local", "user": "pod", "namespace": namespace_of(self._context.pod)}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": cluster}],
            "users": [{"name": "pod", "user": user}],
            "contexts": [{"name": "pod", "context": context}],
            "current-context": "pod",
        }


def _write(path: Path, text: str) -> None:
    """Replace a file in one step, readable by its owner only."""
    temporary = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)
