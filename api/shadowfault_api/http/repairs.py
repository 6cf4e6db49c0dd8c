"""/api/admin/repairs: chosen discrepancies written anew from the primary to the shadow."""

import asyncio
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import Request

from shadowfault_api.http.admin import admin_router
from shadowfault_api.http.context import request_id_of
from shadowfault_api.http.models import RepairRequest
from shadowfault_api.http.problems import Problem, unavailable
from shadowfault_api.http.resources import Held

_log: Final = structlog.get_logger("shadowfault.repair")
# A request is answered when its repair has ended: no statement of it may take for ever.
_STATEMENT_SECONDS: Final = 10.0

router = admin_router("repairs", HTTPStatus.UNPROCESSABLE_ENTITY)


@router.post("")
async def repair(body: RepairRequest, request: Request, held: Held) -> dict[str, Any]:
    """Say what would be repaired, or, with `apply`, repair it. What no longer differs is said so."""
    # Here and not above: the API starts without the verifier.
    from shadowfault_api.repair import (  # noqa: PLC0415
        RepairOptions,
        Selection,
        UnknownSelectionError,
        repair_stores,
    )
    from shadowfault_api.verifier.errors import VerificationError  # noqa: PLC0415
    from shadowfault_api.verifier.model import DiscrepancyType  # noqa: PLC0415

    given = body.model_fields_set
    selection = Selection(
        discrepancies=tuple(body.discrepancies),
        evidence=tuple(body.evidence),
        run=body.run or None,
        keys=tuple(body.keys),
        discrepancy_type=DiscrepancyType(body.type) if "type" in given else None,
        after=body.after,
    )
    options = RepairOptions(
        apply=body.apply,
        delete_unexplained=body.delete_unexplained,
        limit=body.limit,
        rows_per_second=body.rows_per_second,
        statement_seconds=_STATEMENT_SECONDS,
        stopping=held.stopping,
    )
    try:
        report = await asyncio.to_thread(
            repair_stores,
            held.settings.database_url.get_secret_value(),
            held.settings.shadow_database_url.get_secret_value(),
            selection,
            options=options,
            request_id=request_id_of(request.scope),
        )
    except UnknownSelectionError as error:
        raise Problem(HTTPStatus.NOT_FOUND, f"{str(error)[:1].upper()}{str(error)[1:]}.") from error
    except VerificationError as error:
        _log.warning("repair_not_done", error_class=type(error).__name__)
        raise unavailable("A store does not answer. What was repaired until then is on record.") from error
    _log.info("repair_done", repair_id=report.repair_id, applied=report.applied, outcomes=report.counts)
    return report.as_dict()
