"""Where the API server is and who we are: for kopf's watches and for our own requests alike."""

from __future__ import annotations

import logging
import os

import kopf


def connection(settings: kopf.OperatorSettings) -> kopf.ConnectionInfo:
    """KUBECONFIG when it is set, else the pod's service account, else ~/.kube/config, as other tools do.

    Read anew at each call: tokens of service accounts are rotated.

    Raises:
        kopf.LoginError: none of them is there.
    """
    attempts = [kopf.login_with_service_account, kopf.login_with_kubeconfig]
    if os.environ.get("KUBECONFIG"):
        attempts.reverse()
    for attempt in attempts:
        found = attempt(settings=settings)
        if found is None:
            continue
        if found.token or found.username or found.certificate_path or found.certificate_data:
            return found
        # A kubeconfig whose user is a plugin (exec), as those of the cloud providers: the client runs it.
        return kopf.login_via_client(settings=settings, logger=logging.getLogger(__name__)) or found
    raise kopf.LoginError("no KUBECONFIG, no service account and no ~/.kube/config: nowhere to connect to")
