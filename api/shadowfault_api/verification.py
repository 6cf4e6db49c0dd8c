"""The verifier as the admin job runs it: in a thread, under the id of a run that is entered already."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threading import Event

    from shadowfault_api.jobs import Verification
    from shadowfault_api.settings import Settings


def verification(settings: Settings) -> Verification:
    """Bind the verifier to the databases of these settings."""

    def verify(run_id: str, trigger: str, stopping: Event) -> dict[str, Any]:
        # Here and not above: the API starts without it.
        from shadowfault_api.verifier import Mode, VerifierOptions, verify_stores  # noqa: PLC0415

        # What a person or an experiment's account asks for is the whole; the schedule's passes add up to it.
        options = VerifierOptions(
            mode=Mode.INCREMENTAL if trigger == "schedule" else Mode.FULL,
            full_every=timedelta(seconds=settings.verifier_full_every_seconds),
            rows_per_second=settings.verifier_rows_per_second,
            stopping=stopping,
        )
        report = verify_stores(
            settings.database_url.get_secret_value(),
            settings.shadow_database_url.get_secret_value(),
            run_id=run_id,
            options=options,
        )
        result: dict[str, Any] = report.as_dict()
        return result

    return verify
