"""The command line: plan prints what the SDK decides; a missing extra is answered with its installation."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest
from typer.testing import CliRunner

import shadowfault
from shadowfault_cli.plan import app as plan_app

runner = CliRunner()


def test_plan_prints_what_an_injector_will_do() -> None:
    config = shadowfault.ChaosConfig(enabled=True, fail_rate=0.3, seed="s1")
    injector = shadowfault.FaultInjector(config)
    calls = [injector.check(shadowfault.Surface.SHADOW_WRITE, "Listing", "create") for _ in range(80)]
    failing = [n for n, fault in enumerate(calls) if fault is not None]
    assert failing

    answer = runner.invoke(
        plan_app, ["--seed", "s1", "--rate", "0.3", "--operation", "create", "--count", "80", "-o", "json"]
    )

    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.output)["failing"] == failing


def test_plan_draws_rows_of_fifty_with_their_number() -> None:
    answer = runner.invoke(plan_app, ["--seed", "s1", "--rate", "1", "--count", "60"])

    assert answer.output.splitlines() == [
        f"{0:>7}  {'x' * 50}",
        f"{50:>7}  {'x' * 10}",
        "60 of 60 Listing create calls fail (x); numbers start at 0",
    ]


def test_plan_prints_what_becomes_of_requests_with_an_id() -> None:
    injector = shadowfault.FaultInjector(shadowfault.ChaosConfig(enabled=True, fail_rate=0.3, seed="s1"))
    ids = [f"request-{number}" for number in range(40)]
    surface = shadowfault.Surface.SHADOW_WRITE
    failing = [one for one in ids if injector.check(surface, "Listing", "create", request_id=one)]
    assert 0 < len(failing) < len(ids)

    options = ["--seed", "s1", "--rate", "0.3", "--request-id", ids[0], "--request-id", "-"]
    lines = "\n".join([*ids[1:], ""])
    document = runner.invoke(plan_app, [*options, "-o", "json"], input=lines)
    assert (document.exit_code, json.loads(document.output)["failing"]) == (0, failing)
    text = runner.invoke(plan_app, options, input=lines).output.splitlines()
    assert [line for line in text if line.startswith("x")] == [f"x  {one}" for one in failing]
    assert text[-1] == f"{len(failing)} of 40 Listing create requests fail (x)"


@pytest.mark.parametrize("rate", ["1.5", "-0.1", "nan", "often"])
def test_plan_refuses_a_rate_that_is_none(rate: str) -> None:
    answer = runner.invoke(plan_app, ["--seed", "s1", "--rate", rate])

    assert answer.exit_code == 2
    assert "--rate" in answer.output


def run_without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process in which `module` cannot be imported."""
    program = textwrap.dedent(
        f"""
        import sys
        sys.modules[{module!r}] = None
        sys.argv = ["shadowfault", *{list(arguments)!r}]
        from shadowfault_cli.__main__ import main
        main()
        """
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [("typer", ["plan"], "cli"), ("kopf", ["operator"], "operator"), ("uvicorn", ["api"], "api")],
)
def test_a_missing_extra_is_answered_with_the_command_that_installs_it(
    module: str, arguments: list[str], extra: str
) -> None:
    answer = run_without(module, *arguments)

    assert answer.returncode == 2
    assert f"pip install 'shadowfault[{extra}]'" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("command", ["cluster", "demo"])
def test_a_development_command_outside_a_checkout_says_so(command: str) -> None:
    answer = run_without(f"shadowfault_{command}", command)

    assert answer.returncode == 2
    assert "not part of the installed package" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_defect_has_an_exit_status_of_its_own_and_quotes_no_message() -> None:
    """1 means that there are discrepancies, or that something is left to do."""
    program = (
        "import sys; sys.argv = ['shadowfault', 'verify']\n"
        "import shadowfault_api.verifier.cli as cli\n"
        "def fails(*_): raise UnicodeError('a row of Jane')\n"
        "cli.verify_stores = cli._verify = fails\n"
        "from shadowfault_cli.__main__ import main\n"
        "main()"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert answer.returncode == 2, answer.stderr
    assert "a defect (UnicodeError)" in answer.stderr
    assert "in fails" in answer.stderr
    assert "Jane" not in answer.stderr


def test_plan_loads_no_framework() -> None:
    program = (
        "import sys; sys.argv = ['shadowfault', 'plan', '--seed', 's', '--rate', '0.1']\n"
        "from shadowfault_cli.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'fastapi', 'kopf', 'sqlalchemy', 'kubernetes'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
