"""Whether a Deployment is in the hands of Argo Rollouts or Flagger, told by what they leave on it.

Their own kinds are not read: that would take permissions on whatever CRDs a cluster has. What they leave:

- Both write through client-go, so that the API server notes the name of their program as field manager, also
  of the replicas that they scale (`rollouts-controller`, `flagger`).
- Flagger is the controller of the copy `NAME-primary` by an owner reference to its Canary.
- Argo Rollouts keeps its notes in annotations that begin with `rollout.argoproj.io/`.

A Rollout that refers to the Deployment and never scales it (`scaleDown: never`) leaves nothing to be seen,
nor does whoever scales through the subresource: the API server (1.34) notes no manager for the replicas then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from shadowfault_operator.target import Target

_SCALERS: Final = {"rollouts-controller": "Argo Rollouts", "flagger": "Flagger"}
_OWNERS: Final = {("argoproj.io", "Rollout"): "Argo Rollouts", ("flagger.app", "Canary"): "Flagger"}
_ANNOTATION: Final = "rollout.argoproj.io/"


def handed_over(target: Target) -> str | None:
    """Who has the Deployment and by which mark, for people; None when nobody has."""
    for owner in target.owner_references:
        group = str(owner.get("apiVersion", "")).partition("/")[0]
        who = _OWNERS.get((group, str(owner.get("kind", ""))))
        if who is not None:
            return f"{who}: it is owned by {owner.get('kind')} {owner.get('name')}"
    for manager in sorted(target.scalers):
        if manager in _SCALERS:
            return f"{_SCALERS[manager]}: its replicas were set by {manager}"
    for name in sorted(target.annotations):
        if name.startswith(_ANNOTATION):
            return f"Argo Rollouts: it carries the annotation {name}"
    return None
