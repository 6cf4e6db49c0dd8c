"""Bodies of requests and answers."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel

from shadowfault.account import UID_PATTERN
from shadowfault_api.entities import Listing
from shadowfault_api.store.primary import Change

_HIGHEST_PRICE = Decimal("9999999999.99")
_PRICE_SCHEMA = {"type": "number", "minimum": 0, "maximum": float(_HIGHEST_PRICE)}


def _number_only(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("must be a JSON number, such as 1500 or 1500.50")  # noqa: TRY004 - pydantic wants ValueError
    return value


Price = Annotated[
    Decimal,
    BeforeValidator(_number_only),
    Field(ge=0, le=_HIGHEST_PRICE, decimal_places=2),
    # Up to twelve digits a double prints as they are.
    PlainSerializer(float, return_type=float),
]
SentPrice = Annotated[
    Price,
    WithJsonSchema(
        {**_PRICE_SCHEMA, "multipleOf": 0.01, "description": "At most two decimals.", "examples": [1500]}
    ),
]
# No control characters: PostgreSQL cannot hold U+0000, and none of them belongs into a title.
Title = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$"),
    Field(examples=["Test"]),
]


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class NewListing(_Model):
    """The body of POST /api/listings."""

    title: Title
    price: SentPrice


class ListingPatch(_Model):
    """The body of PATCH: the fields to change, one at least. There is no null: a field is left out."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    title: Title = ""
    price: SentPrice = Decimal(0)

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("give a title, a price or both")
        return self

    def change(self) -> Change:
        """What is to be set."""
        given = self.model_fields_set
        return Change(
            title=self.title if "title" in given else None, price=self.price if "price" in given else None
        )


class ListingDocument(_Model):
    """A listing as it is answered."""

    id: str = Field(json_schema_extra={"format": "uuid"})
    title: str
    price: Annotated[Price, WithJsonSchema(_PRICE_SCHEMA)]
    version: int = Field(ge=1)
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, listing: Listing) -> Self:
        """Build the document of a listing."""
        return cls(
            id=listing.id,
            title=listing.title,
            price=listing.price,
            version=listing.version,
            created_at=listing.created_at,
            updated_at=listing.updated_at,
        )


class ListingPage(_Model):
    """A page. `next` is the `after` of the next one, null on the last."""

    items: list[ListingDocument]
    next: str | None = None


class Views(_Model):
    """How often a listing was viewed."""

    views: int = Field(ge=0)


class Accepted(_Model):
    """The answer to a view: it will be counted if that can be done."""

    accepted: bool = True


class Disarm(BaseModel):
    """The body of POST /chaos/disarm: whose faults are to stop."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel)

    experiment_uid: Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Disarmed(_Model):
    """Whether an injector is disarmed now; false where none is installed."""

    disarmed: bool


class AccountRequest(BaseModel):
    """The body of POST /chaos/account: of which experiment, by its UID."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel)

    experiment_uid: Annotated[str, StringConstraints(pattern=UID_PATTERN)]


class Verifying(_Model):
    """The experiment is known; ask again in a moment."""

    state: Literal["verifying"] = "verifying"


_Count = Annotated[int, Field(ge=0)]


class AccountDocument(_Model):
    """What an experiment came to. A figure that is not known is null."""

    state: Literal["complete"]
    experiment_uid: str
    injected: _Count = Field(description="Shadow writes the experiment made to fail.")
    shadow_failures: _Count = Field(description="All shadow writes that failed meanwhile, those among them.")
    discrepancies: dict[str, _Count] = Field(description="What the verifier found of it, by type.")
    explained: _Count
    unexplained: _Count
    primary_errors: _Count | None = Field(description="Writes of users answered with a 5xx meanwhile.")
    primary_requests: _Count | None = Field(description="Writes users asked for meanwhile.")


_RecordId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_EntityId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,36}$")]
_MOST_IDS = 1000
_Chosen = ("discrepancies", "evidence", "run", "keys", "type")


class RepairRequest(_Model):
    """The body of POST /api/admin/repairs: what to repair, one kind at least, and whether to write."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": [name]} for name in _Chosen]})

    discrepancies: list[_RecordId] = Field(default=[], min_length=1, max_length=_MOST_IDS)
    evidence: list[_RecordId] = Field(default=[], min_length=1, max_length=_MOST_IDS)
    run: _RecordId = ""
    keys: list[_EntityId] = Field(default=[], min_length=1, max_length=_MOST_IDS)
    type: Literal["missing_in_shadow", "missing_in_primary", "data_mismatch"] = "missing_in_shadow"
    after: _EntityId = Field(
        default="", description="Only ids beyond this one: the `next` of a repair before."
    )
    apply: Annotated[bool, Strict(), Field(description="Write; without it nothing is written.")] = False
    delete_unexplained: Annotated[
        bool,
        Strict(),
        Field(description="Make tombstones also where no delete is on record."),
    ] = False
    # In JSON 100.0 is an integer too, and "100" is none.
    limit: Annotated[int, Field(ge=1, le=_MOST_IDS), BeforeValidator(_number_only)] = 100
    rows_per_second: Annotated[float, Field(ge=1, le=10_000), BeforeValidator(_number_only)] = 100.0

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.model_fields_set.intersection(_Chosen):
            raise ValueError("give one of " + ", ".join(_Chosen))
        return self
