"""The verifier as the admin job runs it: in a thread, under the id of a run that is entered already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
