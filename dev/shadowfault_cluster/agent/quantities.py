"""Kubernetes quantities ("100m", "64Mi"), as far as resourceFieldRef needs them."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}
_QUANTITY = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([a-zA-Z]*)")


def parse_quantity(text: str) -> Decimal:
    """The number a quantity stands for. Raises ValueError."""
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in _SUFFIXES:
        raise ValueError(f"{text!r} is not a quantity, such as 100m, 2 or 64Mi")
    return Decimal(match[1]) * _SUFFIXES[match[2]]


def divided(quantity: str, divisor: str) -> str:
    """`quantity` in units of `divisor`, rounded up to a whole number as the kubelet does."""
    unit = parse_quantity(divisor) or Decimal(1)  # the API server spells an absent divisor "0"
    return str(int((parse_quantity(quantity) / unit).to_integral_value(rounding=ROUND_CEILING)))
