"""What watches tell of our own writes: the pass that made them has decided on them already."""

from __future__ import annotations

import zlib
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_operator.model import Key
    from shadowfault_operator.target import Target


class Echoes:
    """Has an experiment looked at when its target is not as the last pass over it left it.

    A change that comes while a pass is under way is judged at the end of it, by what that pass rested on.
    Whatever differs from that, in doubt too, is a reason to look: a person's change is never an echo, for no
    pass has rested on it.
    """

    def __init__(self, enqueue: Callable[[Key], None]) -> None:
        self._enqueue = enqueue
        # What the last pass over an experiment saw in its target when it found nothing left to do.
        self._rested: dict[Key, int] = {}
        # Of those that a pass is under way over: what was told meanwhile.
        self._told: defaultdict[Key, set[int]] = defaultdict(set)
        self._under_way: set[Key] = set()

    def __len__(self) -> int:
        return len(self._rested)

    def changed(self, key: Key, seen: int) -> None:
        """The target of an experiment is told to be so."""
        if key in self._under_way:
            self._told[key].add(seen)
        elif self._rested.get(key) != seen:
            self._enqueue(key)

    def begin(self, key: Key) -> None:
        """A pass begins, and nothing is rested on before its end."""
        self._under_way.add(key)
        self._rested.pop(key, None)

    def rest(self, key: Key, seen: int) -> None:
        """The pass has found nothing left to do with the target like this."""
        self._rested[key] = seen

    def end(self, key: Key) -> None:
        """The pass is over, whatever came of it."""
        self._under_way.discard(key)
        if self._told.pop(key, set()) - {self._rested.get(key)}:
            self._rested.pop(key, None)
            self._enqueue(key)

    def forget(self, key: Key) -> None:
        """Nothing more is to be done with the experiment."""
        self._rested.pop(key, None)


def fingerprint(target: Target | None) -> int:
    """Changes with all that decisions look at, and not with each step of a rollout; 0 for no target."""
    if target is None:
        return 0
    owned = [
        (managed.get("manager"), managed.get("operation"), managed.get("fieldsV1"))
        for managed in target.managed_fields
        if managed.get("subresource") is None
    ]
    return zlib.crc32(repr((target.uid, target.generation, target.rollout_failed, owned)).encode())
