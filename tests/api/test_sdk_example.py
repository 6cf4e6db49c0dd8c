"""The example under docs/examples: a service that is not ours, as a process, disarmed over HTTP."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

import shadowfault
from shadowfault_testing.api import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "notes.py"


def _notes(file: Path) -> set[int]:
    with closing(sqlite3.connect(file)) as database:
        return {row[0] for row in database.execute("SELECT id FROM notes")}


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[httpx.Client]:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "CHAOS_ENABLED": "true",
        "CHAOS_FAIL_RATE": "0.5",
        "CHAOS_SEED": "notes",
        "CHAOS_EXPERIMENT": "staging/notes",
        "CHAOS_EXPERIMENT_UID": "uid-1",
    }
    files = [str(tmp_path / name) for name in ("primary.db", "shadow.db")]
    process = subprocess.Popen([sys.executable, str(EXAMPLE), *files, str(port)], env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as client:
            eventually("the example answers", lambda: _answers(client))
            yield client
    finally:
        process.kill()
        process.wait()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False


def test_a_service_that_is_not_ours_runs_an_experiment_and_is_disarmed(
    notes: httpx.Client, tmp_path: Path
) -> None:
    primary, shadow = tmp_path / "primary.db", tmp_path / "shadow.db"
    fails = list(shadowfault.plan("notes", 0.5, "create", 12, entity_type="Note"))
    for n in range(12):
        assert notes.post("/notes", content=f"note {n}").status_code == 201
    expected = {n + 1 for n, fail in enumerate(fails) if not fail}
    assert 0 < len(expected) < 12
    eventually("the shadow writes", lambda: _notes(shadow) == expected)
    assert _notes(primary) == set(range(1, 13))
    series = 'chaos_injected_faults_total{entity_type="Note",operation="create"}'
    assert f"{series} {12 - len(expected)}" in notes.get("/metrics").text.splitlines()
    assert notes.get("/health").json()["chaos"]["experiment"] == "staging/notes"

    assert notes.post("/chaos/disarm", json={"experimentUid": "uid-1"}).json() == {"disarmed": True}
    for n in range(6):
        assert notes.post("/notes", content=f"note {n}").status_code == 201
    eventually("all shadow writes", lambda: _notes(shadow) == expected | set(range(13, 19)))
