"""What a dry run shows: what would be written into which container, and every net that would refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shadowfault_operator.injection import environment, record
from shadowfault_operator.nets import chosen_container

if TYPE_CHECKING:
    from datetime import datetime

    from shadowfault_operator.model import Experiment, Json, Spec
    from shadowfault_operator.nets import Objection
    from shadowfault_operator.target import Target


def preview(  # noqa: PLR0913 - what an injection is made of
    experiment: Experiment,
    spec: Spec,
    target: Target | None,
    objections: tuple[Objection, ...],
    *,
    seed: str,
    expires_at: datetime,
) -> Json:
    """The patch as it would be if it were made now.

    Of entries that the container has already, only the names are shown: their values are none of ours.
    """
    refusals = [{"reason": item.reason.title, "message": item.message} for item in objections]
    container = chosen_container(spec, target) if target else None
    if target is None or container is None:
        return {"refusals": refusals}
    injection = record(target, container, environment(experiment, spec, seed, expires_at))
    return {
        "target": {"kind": "Deployment", "name": target.name},
        "container": container.name,
        "env": [{"name": name, "value": value} for name, value in injection.environment.items()],
        "replaces": [original.name for original in injection.originals],
        "refusals": refusals,
    }
