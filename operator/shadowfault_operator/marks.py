"""What marks a namespace or a workload as production.

The same rule is in the admission policies under crds/, in CEL. tests/data/production_names.yaml states it in
words and has the cases that both are tested against.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_WORD: Final = re.compile(r"(?:^|[-._])((?:production|prod|prd|live)[0-9]*)(?:[-._]|$)")
_ENVIRONMENT_LABEL: Final = re.compile(r"(?:.*/)?(?:environment|env|stage|tier)")


def production_word(text: str) -> str | None:
    """The word in a name or in a value that marks it as production, or None."""
    match = _WORD.search(text.strip().lower())
    return match.group(1) if match else None


def production_label(labels: Mapping[str, str]) -> str | None:
    """The label that marks its object as production, as `key=value`, or None."""
    for key, value in sorted(labels.items()):
        if _ENVIRONMENT_LABEL.fullmatch(key.lower()) and production_word(value):
            return f"{key}={value}"
    return None
