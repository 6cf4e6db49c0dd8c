"""`python -m shadowfault_packaging.release FOLDER`: what a release consists of, made and not pushed.

The wheel, the chart's archive, and SHA256SUMS over everything in the folder. All versions have to agree, and
the changelog has to know what is released.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import yaml

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "charts" / "shadowfault"


class ReleaseError(Exception):
    """This cannot be released; the message says what to correct."""


def versions() -> dict[str, str]:
    """Every place that states the version."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    stated = re.search(r"^ARG VERSION=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    compose = re.search(
        r"SHADOWFAULT_IMAGE:-shadowfault:([^}]+)}", (ROOT / "docker-compose.staging.yml").read_text()
    )
    return {
        "pyproject.toml": tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"],
        "charts/shadowfault/Chart.yaml version": str(chart["version"]),
        "charts/shadowfault/Chart.yaml appVersion": str(chart["appVersion"]),
        "Dockerfile": stated[1] if stated else "none",
        "docker-compose.staging.yml": compose[1] if compose else "none",
    }


def check_versions(stated: dict[str, str]) -> str:
    """The version.

    Raises:
        ReleaseError: the places disagree.
    """
    if len(set(stated.values())) != 1:
        raise ReleaseError(
            "versions differ: " + ", ".join(f"{place} says {it}" for place, it in stated.items())
        )
    return next(iter(stated.values()))


def check_changelog(changelog: str, version: str) -> str:
    """What the changelog says of the version, or of what is not released yet.

    Raises:
        ReleaseError: it says nothing.
    """
    for heading in (version, "Unreleased"):
        section = re.search(
            rf"^## \[{re.escape(heading)}\].*?\n(?P<text>.*?)(?=^## \[|\Z)",
            changelog,
            re.DOTALL | re.MULTILINE,
        )
        if section and section["text"].strip():
            return section["text"].strip()
    raise ReleaseError(f"CHANGELOG.md says nothing of {version}, nor of anything unreleased")


def checksums(folder: Path) -> str:
    """Lines as `sha256sum --check` reads them, for every file but the list itself."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != "SHA256SUMS")
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)


def make(folder: Path) -> None:
    """Make everything.

    Raises:
        ReleaseError: something cannot be released.
    """
    version = check_versions(versions())
    notes = check_changelog((ROOT / "CHANGELOG.md").read_text(), version)
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("*.whl"), *folder.glob("*.tgz")]:
        old.unlink()
    _run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        ROOT,
    )
    _run("helm", "lint", "--strict", CHART)
    _run("helm", "package", CHART, "--destination", folder)
    (folder / "notes.md").write_text(notes + "\n")
    (folder / "SHA256SUMS").write_text(checksums(folder))


def _run(*command: str | Path) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - our own
            [str(part) for part in command], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise ReleaseError(f"{command[0]} is not on PATH: install it and try again") from None
    if done.returncode:
        raise ReleaseError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


def main() -> int:
    """Make a release into the folder that is named, and list it."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "dist")
    try:
        make(folder)
    except ReleaseError as error:
        sys.stderr.write(f"release: {error}\n")
        return 1
    sys.stdout.write((folder / "SHA256SUMS").read_text())
    sys.stdout.write(f"release: all of the above is in {folder}/; nothing was pushed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
