"""Kubeconfig files that carry their certificates, so that they can be copied elsewhere."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, *, cluster: str, server: str, user: str, pki: Path) -> None:
    """Write a kubeconfig for the client certificate `user` in `pki`, readable by its owner only."""
    context = f"shadowfault-{cluster}"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": context,
                "cluster": {"server": server, "certificate-authority-data": _encode(pki / "ca.crt")},
            }
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": _encode(pki / f"{user}.crt"),
                    "client-key-data": _encode(pki / f"{user}.key"),
                },
            }
        ],
        "contexts": [{"name": context, "context": {"cluster": context, "user": user}}],
        "current-context": context,
    }
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        yaml.safe_dump(document, file, sort_keys=False)


def _encode(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
