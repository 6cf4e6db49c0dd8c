"""What the layout of the repository must not break."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SOURCE_ROOTS = [ROOT, *(ROOT / name for name in ("sdk", "cli", "api", "operator", "dev"))]


def test_operator_is_a_source_root_and_no_package() -> None:
    assert not list((ROOT / "operator").glob("__init__.*"))


def test_the_operator_module_is_pythons_own() -> None:
    program = (
        "import sys\n"
        f"sys.path[:0] = {[str(path) for path in SOURCE_ROOTS]!r}\n"
        "sys.modules.pop('operator', None)\n"
        "import operator\n"
        "print(operator.__file__, operator.add(1, 2))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    where, three = result.stdout.split()
    assert three == "3"
    assert not Path(where).is_relative_to(ROOT / "operator")


def test_the_sdk_imports_the_standard_library_only() -> None:
    imported = {
        name.split(".")[0]
        for path in (ROOT / "sdk" / "shadowfault").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _modules(node)
    }
    assert imported - {"shadowfault"} <= sys.stdlib_module_names
    assert "hashlib" in imported


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module]
    return []
