"""What the OpenAPI document promises, tried with generated requests against a real process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from shadowfault_api.app import create_app
from shadowfault_api.settings import Settings
from shadowfault_testing.service import launch_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemathesis.schemas import APIOperation

load_all_checks()
TOKEN = "a-token-of-some-length"
PROMISES = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
        "positive_data_acceptance",
        "unsupported_method",
    ]
)


# The document is the same whatever the settings are; nothing is connected here.
SCHEMA = schemathesis.openapi.from_dict(create_app(Settings(), None).openapi())
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    service = launch_service(tmp_path_factory.mktemp("openapi") / "service.log", {"ADMIN_TOKEN": TOKEN})
    try:
        yield service.url
    finally:
        service.kill()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_generated_requests_get_what_the_document_promises(
    url: str, operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode
) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"} if operation.path.startswith("/api/admin") else {}

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(case=operation.as_strategy(generation_mode=mode))
    def holds(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=url, checks=PROMISES, headers=headers)

    try:
        holds()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE
        assert not operation.body, "a body can always be wrong"
