"""`python -m shadowfault_packaging.settings` writes docs/settings.md from what the code declares."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from shadowfault_api.settings import Settings as ServiceSettings
from shadowfault_operator.settings import Settings as OperatorSettings

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_settings import BaseSettings

PAGE: Final = Path(__file__).parents[2] / "docs" / "settings.md"
_HEAD: Final = """\
# Settings

Environment variables, read once at the start. Generated from the code by
`python -m shadowfault_packaging.settings`. A value that cannot be used ends the process with status 2 and a
line for each such variable that says why, without the value. Durations are in seconds. The chart sets them
from its values: see its [README](../charts/shadowfault/README.md).

The `CHAOS_*` variables belong to the SDK: [sdk.md](sdk.md#at-the-start). Traces follow OpenTelemetry's own
variables, such as `OTEL_EXPORTER_OTLP_ENDPOINT`, and are off without that one.
"""
_SERVICE: Final = """
## The service

Also what `shadowfault verify`, `repair`, `evidence` and `db` read, where an option does not say otherwise.

"""
_OPERATOR: Final = """
## The operator

"""
_TABLE: Final = "| Variable | Default | Meaning |\n|---|---|---|\n"


def page() -> str:
    """The text of docs/settings.md."""
    return "".join((_HEAD, _SERVICE, _table(ServiceSettings), _OPERATOR, _table(OperatorSettings)))


def _table(settings: type[BaseSettings]) -> str:
    prefix = settings.model_config.get("env_prefix", "")
    rows = []
    for name, field in settings.model_fields.items():
        variable = str(field.validation_alias or f"{prefix}{name}").upper()
        rows.append(f"| `{variable}` | {_default(field)} | {_meaning(field)} |\n")
    return _TABLE + "".join(rows)


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, float):
        value = f"{value:g}"
    return "" if value is None or value == () else f"`{value}`"


def _meaning(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return f"{field.description} One of {', '.join(f'`{one}`' for one in get_args(field.annotation))}."
    return str(field.description)


if __name__ == "__main__":
    PAGE.write_text(page())
