"""What the reconciler needs of the outside. Every method may raise what client.ApiClient.request raises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from datetime import datetime

    from shadowfault.account import Account
    from shadowfault_operator.environment import ConfigMaps
    from shadowfault_operator.injection import Overlay
    from shadowfault_operator.model import Experiment, Json, Key, Status
    from shadowfault_operator.nets import Namespace, Objection
    from shadowfault_operator.stopconditions import Observation
    from shadowfault_operator.target import Target
    from shadowfault_operator.verdict import Finding


class Experiments(Protocol):
    """ChaosExperiments. Writes are refused (ConflictError) when the object has changed since it was read."""

    async def get(self, key: Key) -> Experiment | None: ...

    async def list_all(self) -> list[Experiment]: ...

    async def set_status(self, experiment: Experiment, status: Status) -> Experiment: ...

    async def add_finalizer(self, experiment: Experiment) -> Experiment: ...

    async def remove_finalizer(self, experiment: Experiment) -> Experiment: ...

    async def delete(self, experiment: Experiment) -> None: ...


class Targets(Protocol):
    """Deployments. Patches carry the resourceVersion that was read; a list gives each with its namespace."""

    async def get(self, key: Key) -> Target | None: ...

    def list_all(self) -> AsyncIterator[tuple[str, Target]]: ...

    async def inject(self, key: Key, overlay: Overlay) -> Target: ...

    async def restore(self, key: Key, body: Json) -> Target: ...


@dataclass(frozen=True)
class Pod:
    """A pod that may be serving. `experiments` are the UIDs of those whose environment it carries."""

    name: str
    address: str
    uid: str = ""
    ready: bool = False
    experiments: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Serving:
    """The ready pods of a target, newest first, and whether there is any pod at all."""

    ready: tuple[Pod, ...] = ()
    any: bool = False


class Surroundings(Protocol):
    """What is around a target."""

    async def namespace(self, name: str) -> Namespace | None: ...

    async def config_maps(self, namespace: str, names: Iterable[str]) -> ConfigMaps: ...

    async def pods(self, namespace: str, target: Target) -> list[Pod]: ...

    async def serving(self, namespace: str, target: Target) -> Serving: ...


class Announcer(Protocol):
    """Kubernetes Events. Never raises: an Event that is lost stops nothing."""

    async def announce(self, experiment: Experiment, what: Objection, now: datetime) -> None: ...


class Disarmer(Protocol):
    """Tells pods to stop injecting. Returns at once."""

    def disarm(self, namespace: str, target: Target, container: str, experiment_uid: str) -> None: ...


class Accounts(Protocol):
    """Asks targets for the accounts of experiments. Returns at once; the experiment is looked at again."""

    def ask(self, experiment: Experiment, target: Target) -> None: ...

    def answer(self, key: Key, experiment_uid: str) -> Account | Finding | None: ...

    def forget(self, key: Key) -> None: ...


class Watch(Protocol):
    """Follows the metrics of what runs. Each method returns at once."""

    def follow(self, experiment: Experiment, target: Target) -> None: ...

    def leave(self, key: Key) -> None: ...

    def observation(self, experiment: Experiment) -> Observation | None: ...
