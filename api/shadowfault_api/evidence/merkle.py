"""The Merkle tree hash of RFC 6962, section 2.1, over SHA-256.

https://www.rfc-editor.org/rfc/rfc6962#section-2.1
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def leaf_hash(data: bytes) -> bytes:
    """Hash a leaf. The prefix keeps a leaf from being passed off as an inner node."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """The root of leaves that come one by one, in memory that grows with the logarithm of their number."""

    def __init__(self) -> None:
        self.size = 0
        # The roots of the perfect subtrees that the leaves so far make up, the largest first.
        self._peaks: list[bytes] = []

    def append(self, data: bytes) -> None:
        """Add the next leaf."""
        node = leaf_hash(data)
        size = self.size
        while size % 2:
            node = node_hash(self._peaks.pop(), node)
            size //= 2
        self._peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Hash what is there; of nothing at all it is SHA-256 of nothing."""
        if not self._peaks:
            return hashlib.sha256(b"").digest()
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Hash a whole tree."""
    tree = Tree()
    for data in leaves:
        tree.append(data)
    return tree.root()
