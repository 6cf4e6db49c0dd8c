"""Settings of the operator process, from the environment."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """Environment variables carry the prefix SHADOWFAULT_, but for HOST, PORT and LOG_LEVEL."""

    model_config = SettingsConfigDict(env_prefix="SHADOWFAULT_", populate_by_name=True)

    # Namespaces to serve, separated by commas; empty for all.
    namespaces: Annotated[tuple[str, ...], NoDecode] = ()
    # The operator's own namespace, where the global halt is.
    namespace: Annotated[str, Field(min_length=1, validation_alias="POD_NAMESPACE")] = "shadowfault-system"
    # Where /healthz, /readyz and /metrics are served.
    host: Annotated[str, Field(validation_alias="HOST")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, validation_alias="PORT")] = 8080
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], Field(validation_alias="LOG_LEVEL")
    ] = "INFO"
    log_format: Literal["json", "console"] = "json"
    # Experiments worked on at the same time.
    workers: Annotated[int, Field(ge=1, le=256)] = 32
    # Seconds between two looks at everything, for what a watch may have missed.
    resync_seconds: Annotated[float, Field(gt=0)] = 300
    # Seconds between two looks at the metrics of what runs, for stop conditions.
    scrape_seconds: Annotated[float, Field(gt=0)] = 5

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
