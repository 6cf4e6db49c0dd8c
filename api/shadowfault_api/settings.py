"""The service's settings: environment variables, read once. The CHAOS_* ones belong to the SDK."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shadowfault_api.store.urls import database_url

_Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


def _usable_url(url: SecretStr) -> SecretStr:
    database_url(url.get_secret_value())
    return url


_Url = Annotated[SecretStr, AfterValidator(_usable_url)]


class SettingsError(Exception):
    """Variables that cannot be used. The message names each and what is wrong with it, never its value."""


class Settings(BaseSettings):
    """Each field is the environment variable of its name in capitals. Durations are in seconds."""

    model_config = SettingsConfigDict(
        case_sensitive=False, extra="ignore", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    database_url: _Url = Field(
        default=SecretStr("sqlite:///./shadowfault-primary.db"), description="Primary database."
    )
    shadow_database_url: _Url = Field(
        default=SecretStr("sqlite:///./shadowfault-shadow.db"), description="Shadow database."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 in a container.")
    port: int = Field(default=4000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Lowest level that is logged."
    )
    admin_token: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Bearer of the admin paths. Without it they answer to loopback only.",
    )

    database_pool_size: int = Field(default=15, ge=1, le=500, description="Connections to the primary.")
    database_timeout_seconds: _Seconds = Field(
        default=10.0,
        description="Maximum wait for a connection of the primary, and maximum time of a statement there.",
    )

    shadow_timeout_seconds: _Seconds = Field(default=2.0, description="Deadline of one shadow write.")
    shadow_queue_size: int = Field(default=1000, ge=2, description="Shadow writes kept in memory.")
    shadow_batch_size: int = Field(default=200, ge=1, le=1000, description="Shadow writes in a transaction.")
    shadow_batch_seconds: float = Field(default=0.05, ge=0, le=1, description="Time to collect a batch.")
    shadow_claim_seconds: _Seconds = Field(
        default=30.0, description="How long a pending row is reserved for the replica that took it."
    )
    shadow_sweep_seconds: _Seconds = Field(
        default=2.0, description="Pause between two searches for pending rows."
    )
    shadow_breaker_failures: int = Field(
        default=3, ge=1, description="Failed batches in a row that open the breaker."
    )
    shadow_breaker_reset_seconds: _Seconds = Field(
        default=5.0, description="Pause before the shadow is asked again."
    )

    shadow_give_up_seconds: float = Field(
        default=86400.0,
        ge=0,
        allow_inf_nan=False,
        description="Record a write as failed (circuit_open) when it has waited this long; 0: never.",
    )

    verifier_interval_seconds: float = Field(
        default=0.0,
        ge=0,
        description="Interval at which this process runs the verifier; 0 leaves it to a CronJob.",
    )
    verifier_schedule: str = Field(
        default="*/15 * * * *",
        description="When the CronJob runs the verifier, as a cron expression in UTC; off: there is none. "
        "Only shown in the list of jobs: it starts nothing.",
    )
    verifier_full_every_seconds: float = Field(
        default=86400.0,
        ge=0,
        le=315_360_000,
        allow_inf_nan=False,
        description="Time in which the verifier's scheduled, incremental passes together look at every row; "
        "0: each of them does.",
    )
    verifier_rows_per_second: float | None = Field(
        default=None,
        ge=1,
        allow_inf_nan=False,
        description="Maximum rows per second that the verifier reads from each side; no limit without it.",
    )
    evidence_database_url: _Url | None = Field(
        default=None,
        description="The primary database under the role that seals evidence; DATABASE_URL without it.",
    )
    evidence_seal_seconds: float = Field(
        default=0.2,
        ge=0,
        le=3600,
        description="Pause between two seals; 0 leaves sealing to `shadowfault evidence seal`.",
    )
    evidence_signing_key_file: Path | None = Field(
        default=None, description="Ed25519 private key, PEM; seals are not signed without it."
    )
    shutdown_delay_seconds: float = Field(
        default=2.0, ge=0, le=60, description="After SIGTERM, keep serving while routes are withdrawn."
    )
    shutdown_grace_seconds: float = Field(
        default=8.0, ge=0, le=600, description="Then, time to finish requests and queued shadow writes."
    )

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.database_url.get_secret_value() == self.shadow_database_url.get_secret_value():
            raise ValueError("DATABASE_URL and SHADOW_DATABASE_URL must be two databases")
        if self.shadow_claim_seconds <= 2 * self.shadow_timeout_seconds:
            raise ValueError("SHADOW_CLAIM_SECONDS must be more than twice SHADOW_TIMEOUT_SECONDS")
        return self


def evidence_url(settings: Settings) -> str:
    """Name the database evidence is in, under the role that seals it."""
    return (settings.evidence_database_url or settings.database_url).get_secret_value()


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: naming every variable that cannot be used.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = [
            f"  {'.'.join(str(part) for part in item['loc']).upper() or 'settings'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise SettingsError("invalid settings, correct or unset:\n" + "\n".join(problems)) from None
