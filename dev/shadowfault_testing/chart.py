"""The chart, rendered by helm itself."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "shadowfault"
VALUES = {
    "default": [],
    "trial": [CHART / "values-trial.yaml"],
    "full": [ROOT / "tests" / "chart" / "values-full.yaml"],
}


class RefusedError(Exception):
    """Helm does not render these values."""


@dataclass(frozen=True)
class Helm:
    """`helm template` and `helm lint`."""

    namespace: str = "shadowfault-system"

    def run(self, *arguments: str) -> str:
        """What helm prints.

        Raises:
            RefusedError: with what it says.
        """
        done = subprocess.run(  # noqa: S603 - our own arguments
            ["helm", *arguments],  # noqa: S607 - the one on PATH
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RefusedError(done.stdout + done.stderr)
        return done.stdout

    def text(self, case: str, *sets: str) -> str:
        """The manifest for a set of values and more, as for --set-json."""
        files = [f"--values={path}" for path in VALUES[case]]
        more = [f"--set-json={item}" for item in sets]
        return self.run(
            *("template", "shadowfault", str(CHART), "--namespace", self.namespace),
            *("--kube-version", "1.34.0", *files, *more),
        )

    def objects(self, case: str, *sets: str) -> list[dict[str, Any]]:
        """The same as objects."""
        return [item for item in yaml.safe_load_all(self.text(case, *sets)) if item]


def pods(objects: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, metadata and spec of each pod that comes of the objects."""
    found = []
    for item in objects:
        template = item
        match item["kind"]:
            case "Deployment" | "StatefulSet" | "Job":
                template = item["spec"]["template"]
            case "CronJob":
                template = item["spec"]["jobTemplate"]["spec"]["template"]
            case "Pod":
                pass
            case _:
                continue
        name = f"{item['kind']} {item['metadata']['name']}"
        metadata = {"namespace": item["metadata"]["namespace"], **template["metadata"]}
        found.append((name, metadata, template["spec"]))
    return found
