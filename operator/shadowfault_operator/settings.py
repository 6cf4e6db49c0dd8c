"""Settings of the operator process, from the environment."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """Environment variables carry the prefix SHADOWFAULT_, but for HOST, PORT and LOG_LEVEL."""

    model_config = SettingsConfigDict(env_prefix="SHADOWFAULT_", populate_by_name=True)

    namespaces: Annotated[
        tuple[str, ...],
        NoDecode,
        Field(description="Namespaces to serve, separated by commas; empty for all."),
    ] = ()
    namespace: Annotated[
        str,
        Field(
            min_length=1,
            validation_alias="POD_NAMESPACE",
            description="The operator's own namespace, where the global halt is.",
        ),
    ] = "shadowfault-system"
    host: Annotated[
        str,
        Field(
            validation_alias="HOST",
            description="Address of `/healthz`, `/readyz` and `/metrics`; 0.0.0.0 in a container.",
        ),
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, validation_alias="PORT", description="Their port.")] = 8080
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        Field(validation_alias="LOG_LEVEL", description="Lowest level that is logged."),
    ] = "INFO"
    log_format: Annotated[
        Literal["json", "console"], Field(description="One JSON object a line, or text for a terminal.")
    ] = "json"
    workers: Annotated[
        int, Field(ge=1, le=256, description="Experiments that are processed at the same time.")
    ] = 32
    resync_seconds: Annotated[
        float,
        Field(gt=0, description="Pause between two full resyncs, in case a watch missed something."),
    ] = 300
    scrape_seconds: Annotated[
        float,
        Field(gt=0, description="Pause between two reads of a target's metrics, for stop conditions."),
    ] = 5

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(filter(None, (part.strip() for part in value.split(","))))
            if isinstance(value, str)
            else value
        )

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value
