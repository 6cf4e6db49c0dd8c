"""Draining, where something stands in its way. What it does on a real API server: tests/cluster."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shadowfault_operator.drain import NotDrainedError, drain
from shadowfault_operator.errors import RefusedError
from shadowfault_operator.model import FINALIZER


class Refusing:
    """An API server of which a policy refuses one experiment, and where a schedule starts one more."""

    def __init__(self, refused: str) -> None:
        self.refused = refused
        self.experiments = {
            name: {"metadata": {"namespace": "staging", "name": name, "finalizers": [FINALIZER]}, "spec": {}}
            for name in ("a", "b", "c")
        }
        self.schedule: dict[str, Any] = {"metadata": {"namespace": "staging", "name": "often"}, "spec": {}}

    async def request(self, method: str, path: str, **_: Any) -> Any:
        await asyncio.sleep(0)
        if method == "GET":
            kind = path.rsplit("/", 1)[-1]
            items = [self.schedule] if kind == "chaosschedules" else list(self.experiments.values())
            return {"items": [dict(item) for item in items]}
        name = path.rsplit("/", 1)[-1]
        if name == self.refused:
            raise RefusedError(403, "Forbidden", "not this one", f"{method} {path}")
        item = self.schedule if name == "often" else self.experiments[name]
        item["spec"] = {"suspend": True}
        if name == "often" and not self.refused:
            # What the operator was about to create when its schedule was suspended.
            asyncio.get_running_loop().call_later(0.1, self._late)
        else:
            item["metadata"].pop("finalizers", None)
        return item

    def _late(self) -> None:
        self.experiments["late"] = {"metadata": {"namespace": "staging", "name": "late"}, "spec": {}}


async def test_one_refusal_keeps_no_other_from_its_end() -> None:
    server = Refusing("b")
    with pytest.raises(NotDrainedError) as left:
        await drain(server, [], seconds=0, say=lambda _: None)  # type: ignore[arg-type]
    assert ([str(key) for key in left.value.left], left.value.why is not None) == (["staging/b"], True)
    assert [name for name, item in server.experiments.items() if item["spec"]] == ["a", "c"]
    assert server.schedule["spec"] == {"suspend": True}


async def test_what_a_schedule_was_about_to_create_is_ended_too() -> None:
    server = Refusing("")
    await drain(server, [], seconds=30, say=lambda _: None)  # type: ignore[arg-type]
    assert sorted(name for name, item in server.experiments.items() if item["spec"]) == [
        "a",
        "b",
        "c",
        "late",
    ]
