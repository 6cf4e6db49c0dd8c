"""Personal data goes in by every door there is, while all kinds of things fail; none of it is ever told on.

It belongs into the rows people write, and into the outbox's payload until the shadow has it. Nowhere else.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx

from shadowfault_api.jobs import VERIFIER
from shadowfault_testing.api import eventually
from shadowfault_testing.commandline import shadowfault
from shadowfault_testing.service import query

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_testing.databases import DatabasePair
    from shadowfault_testing.service import ServiceProcess

    Launch = Callable[..., ServiceProcess]

NAME: Final = "Zebulon Quartermain"
EMAIL: Final = "zebulon@quartermain.example"
PHONE: Final = "+1 555 019 9777"
PERSON: Final = f"{NAME}, {EMAIL}, {PHONE}"
PRICE: Final = 8154711.99
MARKS: Final = ("zebulon", "quartermain", "019 9777", "0199777", "8154711")
EXAMPLE: Final = Path(__file__).parents[2] / "docs" / "examples" / "notes.py"


def told(text: str) -> list[str]:
    """The marks that are found in a text, however they are escaped."""
    plain = text.lower()
    return [mark for mark in MARKS if mark in plain or mark.replace(" ", "%20") in plain]


def refuse(databases: DatabasePair, which: str, title: str) -> None:
    """Have one database refuse a title by a constraint, in words that quote the row."""
    url = getattr(databases, which)
    if databases.backend == "sqlite":
        query(
            url,
            f"CREATE TRIGGER picky BEFORE INSERT ON listings WHEN NEW.title = '{title}'"
            f" BEGIN SELECT RAISE(ABORT, 'CHECK constraint failed: {PERSON}'); END",
        )
    else:
        query(url, f"ALTER TABLE listings ADD CONSTRAINT picky CHECK (title <> '{title}')")


def push(client: httpx.Client, listing: dict[str, Any]) -> None:
    """Send personal data in every place a request has, most of them wrong."""
    path = f"/api/listings/{listing['id']}"
    json_type = {"content-type": "application/json"}
    for method, target, options in (
        ("PATCH", path, {"json": {"title": f"{PERSON} again", "price": PRICE}}),
        ("PATCH", path, {"json": {"title": PERSON}, "headers": {"if-match": f'"{NAME}"'}}),
        ("POST", "/api/listings", {"content": f'{{"title": "{PERSON}"'.encode(), "headers": json_type}),
        ("POST", "/api/listings", {"json": {"title": PERSON, "price": EMAIL}}),
        ("POST", "/api/listings", {"json": {"title": PERSON, "price": 1, EMAIL: NAME}}),
        ("POST", "/api/listings", {"json": {"title": PERSON * 200, "price": 1}}),
        ("POST", "/api/listings", {"json": {"title": f"{PERSON}\0", "price": 1}}),
        ("POST", "/api/listings", {"content": PERSON.encode() * 5000, "headers": json_type}),
        ("POST", "/api/listings", {"content": NAME.encode("utf-16"), "headers": json_type}),
        ("POST", "/api/listings", {"json": [PERSON]}),
        ("GET", f"/api/listings/{EMAIL}", {}),
        ("GET", f"/{NAME}/{EMAIL}", {}),
        ("GET", "/api/listings", {"params": {"after": EMAIL, NAME: PHONE}}),
        ("GET", "/api/listings", {"params": {"limit": PHONE}}),
        ("QUARTERMAIN", "/api/listings", {}),
        ("GET", path, {"headers": {"x-request-id": EMAIL}}),
        ("GET", path, {"headers": {"user-agent": PERSON, "referer": EMAIL, "x-name": NAME, "cookie": PHONE}}),
        ("GET", path, {"headers": {"traceparent": PERSON, "tracestate": EMAIL, "authorization": PERSON}}),
        ("POST", "/chaos/disarm", {"json": {"experimentUid": EMAIL, "name": NAME}}),
        ("POST", "/chaos/disarm", {"json": {"uid": PERSON}}),
        ("POST", f"/api/admin/jobs/{NAME}/trigger", {}),
        ("GET", f"/api/admin/jobs/{VERIFIER}/runs/{EMAIL}", {}),
        ("POST", "/api/admin/repairs", {"json": {"keys": [EMAIL]}}),
        ("POST", "/api/admin/repairs", {"json": {"run": NAME, "type": PHONE}}),
        ("GET", "/health", {"params": {"name": NAME}}),
        ("GET", "/metrics", {"headers": {"accept": EMAIL}}),
    ):
        answer = client.request(method, target, **options)
        assert answer.status_code < 500, (method, target, answer.text)


def run(command: list[str], databases: DatabasePair) -> str:
    """Run a command of ours over the databases; returns all it says."""
    done = shadowfault(*command, COLUMNS="200", **databases.environment())
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout + done.stderr


def verified(client: httpx.Client) -> str:
    """Trigger the verifier and follow its run; returns the run as it is shown."""
    location = client.post(f"/api/admin/jobs/{VERIFIER}/trigger").headers["location"]
    eventually("the run ends", lambda: client.get(location).json()["state"] != "running")
    return client.get(location).text


def test_no_personal_data_in_logs_metrics_evidence_jobs_or_discrepancies(
    launch: Launch, database_pair: DatabasePair
) -> None:
    chaos = {"CHAOS_ENABLED": "true", "CHAOS_FAIL_RATE": "0.5", "CHAOS_SEED": "s", "CHAOS_SCOPE": "reads"}
    service = launch(**database_pair.environment(), **chaos, LOG_LEVEL="DEBUG", EVIDENCE_SEAL_SECONDS="0.05")
    shown: list[str] = []
    with httpx.Client(base_url=service.url, timeout=30, trust_env=False) as client:
        for which in ("shadow", "primary"):
            refuse(database_pair, which, f"{which} {PERSON}")
        listings = [
            client.post("/api/listings", json={"title": f"{n} {PERSON}", "price": PRICE}).json()
            for n in range(10)
        ]
        for _ in range(4):  # at a rate of 0.5 some of them get as far as the constraint
            client.post("/api/listings", json={"title": f"shadow {PERSON}", "price": PRICE})
        refused = client.post("/api/listings", json={"title": f"primary {PERSON}", "price": PRICE})
        assert refused.status_code == 500
        shown.append(refused.text)
        for listing in listings[:3]:
            push(client, listing)
        client.delete(f"/api/listings/{listings[3]['id']}")
        eventually("the outbox settles", lambda: not pending(database_pair))
        query(
            database_pair.shadow, f"UPDATE listings SET title = 'by hand {PERSON}' WHERE deleted_at IS NULL"
        )
        shown.append(verified(client))
        failed = [row["failure_type"] for row in query(database_pair.primary, "SELECT * FROM outbox")]
        assert {"injected", "constraint"} <= set(failed)

        query(database_pair.shadow, "ALTER TABLE listings RENAME TO away")
        for n in range(8):  # until one is not injected, and meets a shadow without its table
            client.post("/api/listings", json={"title": f"away {n} {PERSON}", "price": PRICE})
        shown.append(verified(client))
        body = {"keys": [one["id"] for one in listings], "apply": True}
        answer = client.post("/api/admin/repairs", json=body)
        assert answer.status_code == 503
        shown.append(answer.text)
        query(database_pair.shadow, "ALTER TABLE away RENAME TO listings")
        shown.append(client.post("/api/admin/repairs", json=body).text)

        shown += [run(command, database_pair) for command in COMMANDS]
        shown.append(client.get("/metrics").text)
        accept = {"accept": "application/openmetrics-text"}
        shown.append(client.get("/metrics", headers=accept).text)
        shown += [client.get("/health").text, client.get("/api/admin/jobs").text]
    service.end()
    log = service.log.read_text()
    assert '"event": "shadow_write_failed"' in log
    assert '"event": "discrepancy_found"' in log
    assert '"event": "primary_failed"' in log
    shown.append(log)
    for table in ("evidence_records", "evidence_leaves", "evidence_seals", "discrepancies", "job_runs"):
        rows = query(database_pair.primary, f"SELECT * FROM {table}")
        assert rows, table
        shown.append(json.dumps(rows, default=str))
    waiting = query(database_pair.primary, "SELECT * FROM outbox")
    shown += [str({name: value for name, value in row.items() if name != "payload"}) for row in waiting]
    for text in shown:
        assert told(text) == [], text


COMMANDS: Final = (
    ["verify"],
    ["verify", "--mode", "incremental"],
    ["verify", "--output", "json"],
    ["repair", "--type", "missing_in_shadow"],
    ["repair", "--type", "data_mismatch", "--apply", "--output", "json"],
    ["evidence", "export"],
    ["evidence", "verify"],
)


def pending(databases: DatabasePair) -> list[dict[str, Any]]:
    return query(databases.primary, "SELECT id FROM outbox WHERE state = 'pending'")


def test_the_marks_are_found_where_they_are() -> None:
    """What looks for nothing finds nothing."""
    for text in (PERSON, f"/{NAME}".replace(" ", "%20"), json.dumps({"a": [PHONE]}), repr({"price": PRICE})):
        assert told(text), text


def test_the_example_of_another_team_tells_nothing_either(tmp_path: Path) -> None:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    chaos = {"CHAOS_ENABLED": "true", "CHAOS_FAIL_RATE": "0.5", "CHAOS_SEED": "team"}
    files = [str(tmp_path / name) for name in ("primary.db", "shadow.db")]
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLE), *files, str(port)],
        env={"PATH": os.environ["PATH"], **chaos},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    shown = []
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as client:
            eventually("the example answers", lambda: _answers(client))
            for n in range(10):
                assert client.post("/notes", content=f"{n} {PERSON}").status_code == 201
            client.get(f"/{NAME}", params={EMAIL: PHONE}, headers={"x-request-id": EMAIL})
            client.post("/chaos/disarm", content=PERSON)
            shown += [client.get("/metrics").text, client.get("/health").text]
            with closing(sqlite3.connect(files[1], isolation_level=None, timeout=5)) as shadow:
                # A file the shadow write cannot go to: an error of the database itself.
                shadow.execute("DROP TABLE notes")
            for n in range(6):
                assert client.post("/notes", content=f"{n} {PERSON}").status_code == 201
            shown.append(client.get("/metrics").text)
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=60)
    assert "InjectedFault" in said
    assert "OperationalError" in said
    for text in (*shown, said):
        assert told(text) == [], text


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False
