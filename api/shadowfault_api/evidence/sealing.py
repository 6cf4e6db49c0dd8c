"""The sealer at work: a thread of the service, or the process of `shadowfault evidence seal --watch`."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from shadowfault_api.evidence.sealer import ChainError, Sealer
from shadowfault_api.evidence.signing import load_signer
from shadowfault_api.settings import evidence_url
from shadowfault_api.store.urls import create_sync_engine

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from shadowfault_api.evidence.signing import Signer
    from shadowfault_api.settings import Settings

_log: Final = structlog.get_logger("shadowfault.evidence")
_LONGEST_PAUSE: Final = 5.0
_MONTHS_EVERY: Final = 3600.0
_INSUFFICIENT_PRIVILEGE: Final = "42501"


def signer_of(settings: Settings) -> Signer | None:
    """Load the key, where there is one.

    Raises:
        KeyFileError: the file cannot be used.
    """
    path = settings.evidence_signing_key_file
    return load_signer(path) if path is not None else None


class Sealing:
    """Looks again and again, until told to stop."""

    def __init__(self, engine: Engine, signer: Signer | None, pause_seconds: float) -> None:
        self._engine = engine
        self._signer = signer
        self._sealer = Sealer(engine, signer)
        self._pause = pause_seconds
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing = False
        self._months_due = 0.0

    @classmethod
    def from_settings(cls, settings: Settings) -> Sealing | None:
        """Build it for the service; None where EVIDENCE_SEAL_SECONDS is 0.

        Raises:
            KeyFileError: the signing key cannot be used.
        """
        if not settings.evidence_seal_seconds:
            return None
        engine = create_sync_engine(
            evidence_url(settings),
            timeout_seconds=settings.database_timeout_seconds,
            pool_size=1,
            max_overflow=0,
        )
        return cls(engine, signer_of(settings), settings.evidence_seal_seconds)

    def start(self) -> None:
        """Begin, in a thread."""
        _log.info("sealing", signed=self._signer is not None, key_id=self._signer and self._signer.key_id)
        self._thread = threading.Thread(target=self.run, name="evidence-sealer", daemon=True)
        self._thread.start()

    def stop(self, grace_seconds: float) -> None:
        """End after the batch at hand. Blocks. The rest is for another, or the next start."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(grace_seconds)
        self._engine.dispose()

    def request_stop(self) -> None:
        """Ask for the end, without waiting for it; may be called by a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Seal until asked to stop."""
        pause = self._pause
        while not self._stopping.is_set():
            try:
                more = self._look()
            except Exception as error:  # noqa: BLE001 - whatever a row holds, the rest is sealed when it is gone
                self._report(error)
                pause = min(max(pause, self._pause) * 2, max(_LONGEST_PAUSE, self._pause))
                more = False
            else:
                self._recovered()
                pause = self._pause
            if not more:
                self._stopping.wait(pause)

    def _look(self) -> bool:
        if time.monotonic() >= self._months_due:
            self._months_due = time.monotonic() + _MONTHS_EVERY
            self._prepare_months()
        return self._sealer.seal_once().more

    def _prepare_months(self) -> None:
        try:
            made = self._sealer.prepare_months()
        except SQLAlchemyError as error:
            # Not now, then in an hour: there is a lead of months, and a default partition after that.
            _log.warning("evidence_months_not_prepared", **_described(error))
        else:
            if made:
                _log.info("evidence_months_prepared", months=made)

    def _report(self, error: Exception) -> None:
        if self._failing:
            return
        self._failing = True
        described = _described(error)
        if isinstance(error, ChainError):
            described["reason"] = str(error)
        if described["sql_state"] == _INSUFFICIENT_PRIVILEGE:
            described["advice"] = "see `shadowfault db grant --help`, or set EVIDENCE_DATABASE_URL"
        _log.error("evidence_not_sealed", **described)

    def _recovered(self) -> None:
        if self._failing:
            self._failing = False
            _log.info("evidence_sealed_again")


def _described(error: Exception) -> dict[str, str | None]:
    """Describe an error of the database without its message, which may quote a row."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return {"error_class": type(original).__name__, "sql_state": getattr(original, "sqlstate", None)}
