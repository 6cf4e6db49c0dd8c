"""The boot guard, in a real process: exit code, stderr to the letter, and no port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shadowfault

FATAL = """\
FATAL: CHAOS_ENABLED=true is forbidden in production.
Chaos engineering must NEVER run in NODE_ENV=production.
This is a safety violation. Aborting boot.
"""
# A service: the guard first, then its port. It tells on stdout that it came so far.
SERVICE = """
import socket, sys
import shadowfault
injector = shadowfault.boot()
with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    print("listening", injector is not None)
"""


def start_service(port: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("CHAOS_", "NODE_ENV"))
    }
    return subprocess.run(
        [sys.executable, "-c", SERVICE, str(port)],
        env=environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("node_env", ["production", "Production", "PRODUCTION", " production\n"])
@pytest.mark.parametrize("enabled", ["true", "True", " TRUE ", "1"])
def test_production_with_chaos_does_not_boot(
    node_env: str, enabled: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        shadowfault.boot({"NODE_ENV": node_env, "CHAOS_ENABLED": enabled})
    assert caught.value.code == 1
    assert capsys.readouterr() == ("", FATAL)


def test_production_with_chaos_ends_the_process_before_its_port() -> None:
    with socket.socket() as taken:
        # Not listening yet holding the port: a service that came as far as its port would fail differently.
        taken.bind(("127.0.0.1", 0))
        result = start_service(taken.getsockname()[1], NODE_ENV="production", CHAOS_ENABLED="true")
    assert (result.returncode, result.stdout, result.stderr) == (1, "", FATAL)


def test_production_is_refused_first_whatever_else_is_wrong() -> None:
    result = start_service(NODE_ENV="production", CHAOS_ENABLED="true", CHAOS_FAIL_RATE="abc")
    assert (result.returncode, result.stdout, result.stderr) == (1, "", FATAL)


@pytest.mark.parametrize("enabled", ["false", "0", ""])
def test_production_without_chaos_boots_with_nothing_installed(enabled: str) -> None:
    result = start_service(NODE_ENV="production", CHAOS_ENABLED=enabled, CHAOS_FAIL_RATE="0.5")
    assert (result.returncode, result.stdout, result.stderr) == (0, "listening False\n", "")


@pytest.mark.parametrize("node_env", ["staging", "", "nonproduction"])
def test_elsewhere_it_boots_with_an_injector(node_env: str) -> None:
    result = start_service(NODE_ENV=node_env, CHAOS_ENABLED="true")
    assert (result.returncode, result.stdout, result.stderr) == (0, "listening True\n", "")


@pytest.mark.parametrize("node_env", ["staging", "production"])
def test_a_malformed_variable_ends_the_process_with_an_explanation(node_env: str) -> None:
    result = start_service(NODE_ENV=node_env, CHAOS_ENABLED="maybe", CHAOS_FAIL_RATE="1.5")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "invalid chaos configuration, correct or unset:\n"
        "  CHAOS_ENABLED='maybe': expected true or false (1 and 0 are accepted too)\n"
        "  CHAOS_FAIL_RATE='1.5': expected a number from 0 to 1, such as 0.1\n"
    )


def test_a_malformed_variable_is_told_also_while_chaos_is_off() -> None:
    result = start_service(CHAOS_ENABLED="false", CHAOS_SCOPE="everything")
    assert result.returncode == 2
    assert "CHAOS_SCOPE='everything'" in result.stderr


def test_nothing_set_installs_nothing() -> None:
    assert shadowfault.boot({}) is None


@given(st.text(max_size=12), st.sampled_from(["production", "Production ", "PRODUCTION"]))
def test_no_spelling_of_true_gets_past_the_guard(enabled: str, node_env: str) -> None:
    try:
        assert shadowfault.boot({"NODE_ENV": node_env, "CHAOS_ENABLED": enabled}) is None
    except SystemExit as stopped:
        assert stopped.code in {1, 2}  # noqa: PT017 - both are right, for different texts
