"""How long a container that ended waits before it is started again."""

from __future__ import annotations

from dataclasses import dataclass

# The kubelet begins with 10 s and ends at 300 s; a developer waits for a fix, so this one begins with 1 s.
FIRST_SECONDS = 1.0
MAX_SECONDS = 300.0
# A run of this length makes up for all crashes before it, as with the kubelet.
FORGIVEN_AFTER_SECONDS = 600.0


@dataclass
class CrashBackOff:
    """At once after the first end, then 1, 2, 4 ... 300 seconds."""

    _next: float = 0.0

    def delay(self, ran_for: float) -> float:
        """The pause before the next start, in seconds, after a run of `ran_for` seconds."""
        if ran_for >= FORGIVEN_AFTER_SECONDS:
            self._next = 0.0
        current = self._next
        self._next = min(MAX_SECONDS, current * 2 if current else FIRST_SECONDS)
        return current
