"""What the ConfigMap of the global halt says."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from shadowfault_operator.decisions import Retry, Transition, decide
from shadowfault_operator.halt import LIFTED, UNKNOWN, HaltState, state_of
from shadowfault_operator.halt_cli import app
from shadowfault_operator.model import Phase


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"halt": "true", "reason": "incident 7"}, "incident 7"),
        ({"halt": "true"}, "no reason given"),
        ({"halt": "yes, please"}, "no reason given"),
        ({"reason": "in a hurry"}, "in a hurry"),
        ({}, "no reason given"),
        (None, "no reason given"),
        ({"halt": "true", "reason": "x" * 1000}, "x" * 200),
    ],
)
def test_one_that_is_there_is_in_force_unless_it_says_otherwise(data: Any, reason: str) -> None:
    assert state_of({"data": data}) == HaltState(reason=reason)


@pytest.mark.parametrize("config_map", [None, {"data": {"halt": "false"}}, {"data": {"halt": "0"}}])
def test_else_it_is_lifted(config_map: Any) -> None:
    assert state_of(config_map) == LIFTED


def test_nothing_begins_in_a_halt(scene: Any) -> None:
    action = decide(scene.view(halt=HaltState(reason="incident 7")), scene.now, lambda: "seed")
    assert isinstance(action, Transition)
    assert (action.status.phase, action.status.reason) == (Phase.REFUSED, "Halted")
    assert "incident 7" in action.status.message


def test_while_nobody_can_tell_nothing_begins_and_nothing_is_refused(scene: Any) -> None:
    assert isinstance(decide(scene.view(halt=UNKNOWN), scene.now, lambda: "seed"), Retry)


@pytest.mark.parametrize("arguments", [[], ["--lift", "--reason", "both"]])
def test_the_command_asks_for_one_of_the_two(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "halt" in done.output
