"""The verifier as the admin job runs it: in a thread, under the id of a run that is entered already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_api.jobs import Verification
    from shadowfault_api.settings import Settings


def verification(settings: Settings) -> Verification:
    """Bind the verifier to the databases of these settings."""

    def verify(run_id: str) -> dict[str, Any]:
        # Here and not above: the API starts without it.
        from shadowfault_api.verifier import verify_stores  # noqa: PLC0415

        report = verify_stores(
            settings.database_url.get_secret_value(),
            settings.shadow_database_url.get_secret_value(),
            trigger="admin",
            run_id=run_id,
        )
        result: dict[str, Any] = report.as_dict()
        return result

    return verify


def going_on(settings: Settings) -> Callable[[], bool]:
    """Bind the question whether a verifier runs now, here or anywhere else."""

    def ask() -> bool:
        from shadowfault_api.verifier.lock import held  # noqa: PLC0415 - as above

        return held(settings.database_url.get_secret_value())

    return ask
