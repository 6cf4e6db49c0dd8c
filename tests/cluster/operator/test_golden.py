"""Golden files: Deployment and experiment in, Deployment and status out, by the real API server.

tests/golden/CASE.in.yaml holds the containers of the pod and the spec of the experiment, CASE.out.yaml what
they are while it runs and after its end, or what they are when it is refused. With UPDATE_GOLDEN=1 in the
environment the outputs are written instead of compared: read the difference before committing it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from shadowfault_testing.api import eventually

if TYPE_CHECKING:
    from shadowfault_testing.operator import Ground

pytestmark = pytest.mark.cluster

GOLDEN = Path(__file__).parents[2] / "golden"
INPUTS = sorted(GOLDEN.glob("*.in.yaml"))
NOISE = {
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}": "UID",
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z": "TIME",
    r"op-[0-9a-f]{8}": "NAMESPACE",
    r"\b(api|shadow)-[0-9]+\b": r"\1",
}


def run_status(status: dict[str, Any]) -> dict[str, Any]:
    """The status without the verdict, which follows when it can be told."""
    conditions = [item for item in status["conditions"] if item["type"] != "Verdict"]
    return {key: value for key, value in status.items() if key != "verdict"} | {"conditions": conditions}


def seen(ground: Ground, target: str, name: str) -> dict[str, Any]:
    """What is compared: the containers without the API server's defaults, and the whole status."""
    containers = ground.pod_spec(target)["spec"]["containers"]
    shown = {
        "containers": [
            {key: item[key] for key in ("name", "image", "env") if key in item} for item in containers
        ],
        "generation": ground.generation(target),
        "status": run_status(ground.status(name)),
    }
    text = yaml.safe_dump(shown, sort_keys=False)
    for pattern, stable in NOISE.items():
        text = re.sub(pattern, stable, text)
    return dict(yaml.safe_load(text))


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.name.removesuffix(".in.yaml"))
def test_golden(ground: Ground, path: Path) -> None:
    given = yaml.safe_load(path.read_text())
    target = ground.deploy(**given["deployment"])
    spec = dict(given["experiment"])
    spec["targetRef"] = {"name": target, **spec.get("targetRef", {})}
    name = ground.start(target, **spec)
    eventually("a phase to stay", lambda: ground.status(name).get("phase") in {"Running", "Refused"})
    found = {}
    if ground.status(name)["phase"] == "Refused":
        found["refused"] = seen(ground, target, name)
    else:
        found["running"] = seen(ground, target, name)
        ground.set_spec(name, suspend=True)
        ground.await_phase(name, "Finished")
        found["finished"] = seen(ground, target, name)
    expected = path.with_name(path.name.replace(".in.", ".out."))
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_text(yaml.safe_dump(found, sort_keys=False, width=110))
    assert yaml.safe_load(expected.read_text()) == found


def test_there_are_golden_files() -> None:
    assert len(INPUTS) >= 5
