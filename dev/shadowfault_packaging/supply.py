"""`python -m shadowfault_packaging.supply FOLDER`: what the image is made of, and under which licences.

The bill of materials is read off the locked runtime, hash by hash, so it says what a build installs. Licences
are those the installed packages declare; a release with one that is not allowed here does not happen.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOCK: Final = Path(__file__).parents[2] / "requirements" / "runtime.txt"
# Part of a licence's name, as packages write it: permissive, or copyleft that binds changes to itself only.
_ALLOWED: Final = (
    "apache",
    "bsd",
    "isc",
    "mit",
    "mpl",
    "mozilla public license 2.0",
    "psf",
    "python software foundation",
    "lgpl",
    "lesser general public license",
    "unlicense",
)
_PINNED: Final = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)", re.MULTILINE)


class SupplyError(Exception):
    """The list cannot be made, or holds what it must not."""


@dataclass(frozen=True)
class Licence:
    """What one package declares."""

    package: str
    version: str
    licence: str

    @property
    def allowed(self) -> bool:
        text = self.licence.lower()
        return any(name in text for name in _ALLOWED)


def pinned(lock: str) -> dict[str, str]:
    """Names, normalised as in PEP 503, and versions of a lock."""
    return {_normal(found["name"]): found["version"] for found in _PINNED.finditer(lock)}


def licences(packages: set[str]) -> list[Licence]:
    """What the installed ones among these packages declare."""
    answer = _tool("piplicenses", "--format=json", "--from=mixed")
    return sorted(
        (
            Licence(item["Name"], item["Version"], item["License"])
            for item in json.loads(answer)
            if _normal(item["Name"]) in packages
        ),
        key=lambda licence: licence.package.lower(),
    )


def bill_of_materials() -> str:
    """CycloneDX 1.6 as JSON, of the locked runtime."""
    return _tool("cyclonedx_py", "requirements", str(LOCK), "--output-reproducible", "--of", "JSON")


def write(folder: Path) -> list[Licence]:
    """Write sbom.cdx.json and licences.md.

    Raises:
        SupplyError: a package has a licence that is not allowed, or none.
    """
    packages = pinned(LOCK.read_text())
    found = licences(set(packages))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sbom.cdx.json").write_text(bill_of_materials())
    rows = [f"| {one.package} | {one.version} | {one.licence} |" for one in found]
    (folder / "licences.md").write_text(
        "\n".join(["| Package | Version | Licence |", "|---|---|---|", *rows, ""])
    )
    refused = [f"{one.package}: {one.licence}" for one in found if not one.allowed]
    if refused:
        raise SupplyError("licences that are not on the list of allowed ones: " + "; ".join(refused))
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _tool(module: str, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - our own environment's
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SupplyError(f"{module} failed: {done.stderr.strip()}")
    return done.stdout


def main() -> int:
    """Write both files into the folder that is named."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "dist")
    try:
        found = write(folder)
    except SupplyError as error:
        sys.stderr.write(f"sbom: {error}\n")
        return 1
    sys.stdout.write(f"sbom: {len(found)} packages in {folder}/sbom.cdx.json and {folder}/licences.md\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
