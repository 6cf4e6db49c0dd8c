"""What is seen of the cluster when a decision is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shadowfault_operator.halt import LIFTED, HaltState
from shadowfault_operator.nets import Net, Objection, Rival, Situation, all_objections, first_objection

if TYPE_CHECKING:
    from shadowfault.account import Account
    from shadowfault_operator.environment import ConfigMaps
    from shadowfault_operator.model import Experiment
    from shadowfault_operator.nets import Namespace
    from shadowfault_operator.stopconditions import Observation
    from shadowfault_operator.target import Target
    from shadowfault_operator.verdict import Finding


class UnknownError(Exception):
    """Something that has to be known could not be read."""


@dataclass(frozen=True)
class View:
    """What is seen of the cluster.

    `namespace` and `config_maps` are None when they could not be read just now. `untouched` is true when the
    API server has refused our injection in this very pass, so that what the target lacks was never there.
    `answer` is what the target said when it was asked for the account, None where it was not, or not yet.
    `judged` is false where its surroundings were not even read, for nothing depends on them.
    `observation` is what the target's metrics say of a run, None where nobody has looked.
    `ahead` is true where nothing but the experiment is known, and that as a watch has told of it.
    """

    experiment: Experiment
    target: Target | None
    namespace: Namespace | None
    config_maps: ConfigMaps | None
    rivals: tuple[Rival, ...] = ()
    untouched: bool = False
    halt: HaltState = LIFTED
    answer: Account | Finding | None = None
    observation: Observation | None = None
    judged: bool = True
    ahead: bool = False

    @property
    def complete(self) -> bool:
        """Whether all was read that the next step may depend on."""
        return not self.judged or (self.namespace is not None and self.config_maps is not None)

    def objection(self, nets: tuple[Net, ...]) -> Objection | None:
        """What the first net that holds says.

        Raises:
            UnknownError: they cannot be asked, for want of something unread.
        """
        return first_objection(nets, self._situation())

    def objections(self, nets: tuple[Net, ...]) -> tuple[Objection, ...]:
        """What all of them say.

        Raises:
            UnknownError: they cannot be asked, for want of something unread.
        """
        return all_objections(nets, self._situation())

    def _situation(self) -> Situation:
        if not self.halt.known:
            raise UnknownError("whether everything is halted cannot be read just now")
        if self.namespace is None:
            raise UnknownError("the namespace cannot be read just now")
        if self.config_maps is None:
            raise UnknownError("a ConfigMap of the target cannot be read just now")
        return Situation(
            self.experiment, self.namespace, self.target, self.config_maps, self.rivals, self.halt
        )


def ahead(told: Experiment) -> View:
    """What is known before anything is read: enough for an end that the experiment itself asks for."""
    return View(told, target=None, namespace=None, config_maps=None, judged=False, ahead=True)
