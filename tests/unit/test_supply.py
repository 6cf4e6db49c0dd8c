"""What a release is made of: versions that agree, allowed licences, workflows that do what CI does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from shadowfault_packaging import release, supply
from shadowfault_packaging.supply import Licence

ROOT = Path(__file__).parents[2]


def test_all_versions_agree_and_the_changelog_knows_it() -> None:
    version = release.check_versions(release.versions())
    assert release.check_changelog((ROOT / "CHANGELOG.md").read_text(), version)


def test_versions_that_differ_are_named() -> None:
    with pytest.raises(release.ReleaseError, match=r"a says 1\.0, b says 1\.1"):
        release.check_versions({"a": "1.0", "b": "1.1"})


@pytest.mark.parametrize("changelog", ["", "## [Unreleased]\n\n## [0.9.0]\n\n- old\n"])
def test_a_version_the_changelog_does_not_know_is_refused(changelog: str) -> None:
    with pytest.raises(release.ReleaseError, match="says nothing of 1\\.0"):
        release.check_changelog(changelog, "1.0")


def test_sums_are_read_by_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "SHA256SUMS").write_text("old")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert release.checksums(tmp_path) == f"{known}  a\n"


def test_the_bill_of_materials_is_the_locked_runtime(tmp_path: Path) -> None:
    found = supply.write(tmp_path)
    listed = json.loads((tmp_path / "sbom.cdx.json").read_text())
    assert listed["bomFormat"] == "CycloneDX"
    pinned = supply.pinned(supply.LOCK.read_text())
    assert {item["name"].lower().replace("_", "-") for item in listed["components"]} == set(pinned)
    # What is for other platforms only is locked and not installed here.
    assert {one.package for one in found} >= {"kopf", "fastapi", "SQLAlchemy", "psycopg"}


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("MIT License", True),
        ("GNU Lesser General Public License v3 (LGPLv3)", True),
        ("LGPL-3.0-only", True),
        ("GNU General Public License v3 (GPLv3)", False),
        ("GNU Affero General Public License v3", False),
        ("UNKNOWN", False),
    ],
)
def test_a_licence_is_allowed_or_not(name: str, allowed: bool) -> None:
    assert Licence("package", "1", name).allowed is allowed


def runs(workflow: str) -> set[str]:
    document: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / workflow).read_text())
    steps = [step for job in document["jobs"].values() for step in job.get("steps", [])]
    return {step["run"] for step in steps if "run" in step}


def test_the_workflow_does_what_ci_does() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    ours = set(re.findall(r"^\s*step(?:_tests)? (make [\w-]+)$", script, re.MULTILINE))
    assert ours - {"make venv"} == runs("ci.yml")
    assert "make release-dry-run" in runs("release.yml")


def test_every_target_named_in_workflows_and_pages_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob(".github/workflows/*.yml")]
    named = {
        name for page in pages for name in re.findall(r"(?:`|\$ |run: )make ([a-z0-9-]+)", page.read_text())
    }
    assert named <= targets


def test_compose_brings_the_variables_of_the_contract() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.staging.yml").read_text())["services"]
    assert services.keys() == {"api", "verify", "primary", "shadow"}
    environment = services["api"]["environment"]
    contract = {"NODE_ENV", "CHAOS_ENABLED", "CHAOS_FAIL_RATE", "CHAOS_SEED", "CHAOS_SCOPE", "DATABASE_URL"}
    assert environment.keys() >= contract
    assert environment["NODE_ENV"] == "staging"
    assert environment["CHAOS_ENABLED"] == "${CHAOS_ENABLED:-false}"
