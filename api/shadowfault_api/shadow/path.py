"""What the parts of the shadow write share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shadowfault_api.deadline import Deadline
    from shadowfault_api.metrics import Metrics
    from shadowfault_api.shadow.breaker import CircuitBreaker
    from shadowfault_api.store.outbox import Outbox
    from shadowfault_api.store.shadow import Shadow
    from shadowfault_api.tracing import Tracing


@dataclass(frozen=True, slots=True)
class ShadowPath:
    """The way from the outbox to the shadow, what guards and what watches it. `deadline`: of one attempt."""

    outbox: Outbox
    shadow: Shadow
    breaker: CircuitBreaker
    deadline: Deadline
    metrics: Metrics
    tracing: Tracing
