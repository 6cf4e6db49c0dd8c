"""Write the chart's README from its values.yaml: `python -m shadowfault_packaging.chart_readme`.

A comment block that begins with `# -- ` describes the key below it, of which the whole value is one row.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).parents[2] / "charts" / "shadowfault"
_KEY: Final = re.compile(r"(?P<indent> *)(?P<name>[A-Za-z][A-Za-z0-9]*):")
_DESCRIPTION: Final = "# -- "


@dataclass(frozen=True)
class Value:
    """One documented value. `path` is dotted, as for --set."""

    path: str
    default: Any
    description: str


def documented(text: str) -> list[Value]:
    """The described keys of a values.yaml, in its order."""
    values = yaml.safe_load(text)
    found: list[Value] = []
    path: list[str] = []
    description: list[str] | None = None
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith(_DESCRIPTION):
            description = [stripped.removeprefix(_DESCRIPTION)]
        elif stripped.startswith("#") and description is not None:
            description.append(stripped.removeprefix("#").strip())
        elif match := _KEY.match(line):
            path = [*path[: len(match["indent"]) // 2], match["name"]]
            if description is not None:
                found.append(Value(".".join(path), _at(values, path), " ".join(description)))
            description = None
        else:
            description = None
    return found


def undocumented(text: str) -> list[str]:
    """Paths of values that no description covers."""
    covered = {value.path for value in documented(text)}

    def walk(value: Any, path: str) -> list[str]:  # noqa: ANN401 - YAML
        if path in covered:
            return []
        if isinstance(value, dict) and value:
            return [leaf for key, item in value.items() for leaf in walk(item, f"{path}.{key}".lstrip("."))]
        return [path]

    return walk(yaml.safe_load(text), "")


def readme(chart: Path = CHART) -> str:
    """The README as it should be."""
    head = (chart / "README.md.head").read_text()
    rows = [
        f"| `{value.path}` | `{_compact(value.default)}` | {value.description.replace('|', '&#124;')} |"
        for value in documented((chart / "values.yaml").read_text())
    ]
    return head + "\n".join(["| Value | Default | |", "|---|---|---|", *rows]) + "\n"


def _at(values: Any, path: list[str]) -> Any:  # noqa: ANN401 - YAML
    for name in path:
        values = values[name]
    return values


def _compact(value: Any) -> str:  # noqa: ANN401 - YAML
    return json.dumps(value, ensure_ascii=False).replace("|", "&#124;")


if __name__ == "__main__":
    (CHART / "README.md").write_text(readme())
