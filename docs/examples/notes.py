"""A service of another team: plain ASGI, two SQLite files, shadow writes under chaos; of ours only the SDK.

CHAOS_ENABLED=true CHAOS_FAIL_RATE=0.3 python docs/examples/notes.py primary.db shadow.db 4000
"""

import asyncio
import json
import logging
import sqlite3
import sys
from contextlib import closing

import uvicorn

import shadowfault
from shadowfault.asgi import ChaosMiddleware, Receive, Scope, Send, request_id

log = logging.getLogger("notes")


class Notes:
    """POST /notes: the primary first, the answer next, then the shadow, which no user waits for."""

    def __init__(self, primary: str, shadow: str, injector: shadowfault.FaultInjector | None) -> None:
        self.primary, self.shadow, self.injector = primary, shadow, injector
        for file in (primary, shadow):
            with closing(sqlite3.connect(file)) as database, database:
                database.execute("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT)")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if (scope["method"], scope["path"]) != ("POST", "/notes"):
            await answer(send, 404, {})
            return
        text = (await receive()).get("body", b"").decode()
        number = await asyncio.to_thread(insert, self.primary, None, text)
        await answer(send, 201, {"id": number})
        try:
            self.fault("create", request_id(scope))
            await asyncio.to_thread(insert, self.shadow, number, text)
        except (shadowfault.InjectedFault, sqlite3.Error) as error:
            log.warning("shadow write of note %s failed: %s", number, type(error).__name__)

    def fault(self, operation: str, key: str | None) -> None:
        """Raise where this shadow write is to fail."""
        if self.injector is not None:
            fault = self.injector.check(shadowfault.Surface.SHADOW_WRITE, "Note", operation, request_id=key)
            if fault is not None:
                raise shadowfault.InjectedFault(fault)


def insert(file: str, number: int | None, text: str) -> int:
    with closing(sqlite3.connect(file, timeout=5)) as database, database:
        return int(database.execute("INSERT INTO notes VALUES (?, ?)", (number, text)).lastrowid or 0)


async def answer(send: Send, status: int, document: dict[str, int]) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})


if __name__ == "__main__":
    injector = shadowfault.boot()  # before any port is opened
    app = ChaosMiddleware(Notes(sys.argv[1], sys.argv[2], injector), injector)
    uvicorn.run(app, port=int(sys.argv[3]), log_level="warning", lifespan="off")
