"""The pool of pod addresses."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Network


class AddressPool:
    """Hands out the addresses of one network, the longest unused first.

    A fresh pod rarely gets the address a dead one just left: whoever still
    talks to the old address is refused, rather than answered by a stranger.
    """

    def __init__(self, network: IPv4Network) -> None:
        """All host addresses of `network` but the first, which is left as a gateway would be."""
        hosts = [str(address) for address in network.hosts()][1:]
        self._free = OrderedDict.fromkeys(hosts)
        self.size = len(hosts)

    @property
    def free(self) -> int:
        """How many addresses are left."""
        return len(self._free)

    def take(self, preferred: str | None = None) -> str | None:
        """Take an address: `preferred` when that is free. None when all are in use."""
        if preferred is not None and preferred in self._free:
            del self._free[preferred]
            return preferred
        return self._free.popitem(last=False)[0] if self._free else None

    def give_back(self, address: str) -> None:
        """Return an address to the pool."""
        self._free[address] = None
