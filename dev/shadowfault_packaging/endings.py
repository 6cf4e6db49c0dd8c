"""`python -m shadowfault_packaging.endings` writes docs/endings.md from the closed list of reasons."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Final

from shadowfault_operator import reasons
from shadowfault_operator.reasons import Reason

PAGE: Final = Path(__file__).parents[2] / "docs" / "endings.md"
_HEAD: Final = """\
# Where an experiment is, and why

The closed list of reasons, generated from `operator/shadowfault_operator/reasons.py` by
`python -m shadowfault_packaging.endings`. Each is `status.reason`, the reason of a condition, of one Event
and the label `reason` of a metric. `Deleted` is an Event on the Deployment too, for the experiment is gone
by then. What a person set in the target stays as they set it, whatever the reason.
"""
_SECTION: Final = re.compile(r"^    # (?P<title>.+)$", re.MULTILINE)


def page() -> str:
    """The text of docs/endings.md."""
    source = Path(reasons.__file__).read_text()
    marks = [*_SECTION.finditer(source), None]
    parts = [_HEAD]
    for mark, following in pairwise(marks):
        if mark is None:
            continue
        inside = source[mark.end() : following.start() if following else len(source)]
        rows = [
            f"| `{reason.title}` | {reason.event_type.value} | {reason.meaning} |"
            for reason in Reason
            if re.search(rf"^    {reason.name} = ", inside, re.MULTILINE)
        ]
        parts.append(
            "\n".join([f"\n## {mark['title']}\n", "| Reason | Event | Meaning |", "|---|---|---|", *rows, ""])
        )
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
