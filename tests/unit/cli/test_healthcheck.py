"""The container's HEALTHCHECK tells whether the process beside it answers."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from shadowfault_cli import healthcheck

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def serving(answers: dict[str, int]) -> Iterator[int]:
    """A server on loopback that answers each path with its status, others with 404; gives the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answers.get(self.path, 404))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("answers", "status"),
    [({"/health": 200}, 0), ({"/healthz": 200}, 0), ({"/health": 503}, 1), ({}, 1)],
)
@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])  # noqa: S104 - what it is told
def test_the_service_or_the_operator_answers(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, int], status: int, host: str
) -> None:
    with serving(answers) as port:
        monkeypatch.setenv("HOST", host)
        monkeypatch.setenv("PORT", str(port))
        assert healthcheck.main() == status


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({}) as port:
        pass
    monkeypatch.setenv("PORT", str(port))
    assert healthcheck.main() == 1
