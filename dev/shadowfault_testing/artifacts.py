"""What is left for whoever looks into a failed end-to-end test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from shadowfault_testing.kind import Kind

_OBJECTS: Final = (
    "nodes,namespaces,pods,deployments,replicasets,statefulsets,jobs,cronjobs,services,configmaps",
    "chaosexperiments.chaos.shadowfault.dev",
    "validatingadmissionpolicies",
)
_LOGS: Final = (
    ("shadowfault-system", "app.kubernetes.io/component=operator"),
    ("staging", "app.kubernetes.io/component=api"),
    ("staging", "app.kubernetes.io/component=verifier"),
    ("staging", "app.kubernetes.io/component=migrations"),
    ("staging", "app.kubernetes.io/component=postgresql-primary"),
)
_EVIDENCE: Final = "SELECT * FROM evidence_records ORDER BY occurred_at DESC LIMIT 500"


def collect(kind: Kind, folder: Path) -> None:
    """Write Events, objects, logs and evidence; what cannot be had is said in its file."""
    folder.mkdir(parents=True, exist_ok=True)

    def keep(name: str, *args: str) -> None:
        done = kind.kubectl(*args, check=False, seconds=60)
        (folder / name).write_text(done.stdout + done.stderr)

    keep("events.txt", "get", "events", "-A", "--sort-by=.lastTimestamp")
    for number, kinds in enumerate(_OBJECTS):
        # No Secrets among them.
        keep(f"objects-{number}.yaml", "get", kinds, "-A", "-o", "yaml", "--show-managed-fields")
    for namespace, selector in _LOGS:
        component = selector.rsplit("=", 1)[1]
        options = ("--all-containers", "--prefix", "--tail=2000", "--ignore-errors")
        keep(f"{component}.log", "-n", namespace, "logs", "-l", selector, *options)
        keep(f"{component}-previous.log", "-n", namespace, "logs", "-l", selector, *options, "--previous")
    keep(
        "evidence.csv",
        *("-n", "staging", "exec", "statefulset/postgresql-primary", "--"),
        *("psql", "--username", "postgres", "--dbname", "shadowfault", "--csv", "--command", _EVIDENCE),
    )
