"""What a seal is: the root of a batch of records, tied to the seal before it.

Documented for others in docs/evidence.md; whoever changes a line here changes the format.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import rfc8785

from shadowfault_api.evidence.merkle import root_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shadowfault_api.evidence.signing import Signer

# `prev` of the first seal.
GENESIS: Final = "0" * 64


@dataclass(frozen=True, slots=True)
class Leaf:
    """A record as its seal knows it; `occurred_at` as `timestamp` writes it."""

    record_id: str
    occurred_at: str
    content_hash: str

    def data(self) -> bytes:
        """What goes into the tree."""
        return f"{self.record_id} {self.occurred_at} {self.content_hash}".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """One seal. Hashes are 64 hex digits, the signature 128, times as `timestamp` writes them.

    `prev` is the head of the seal before; `key_id` and `signature` are None where there was no key.
    """

    number: int
    prev: str
    root: str
    size: int
    sealed_at: str
    first_occurred_at: str
    last_occurred_at: str
    key_id: str | None
    head: str
    signature: str | None

    def computed_head(self) -> str:
        """Hash all of the seal but `head` and `signature`: what `head` must be."""
        document = self.document()
        del document["head"], document["signature"]
        return hashlib.sha256(rfc8785.dumps(document)).hexdigest()

    def document(self) -> dict[str, Any]:
        """Turn it into JSON, as exported."""
        return {
            "number": self.number,
            "prev": self.prev,
            "root": self.root,
            "size": self.size,
            "sealedAt": self.sealed_at,
            "firstOccurredAt": self.first_occurred_at,
            "lastOccurredAt": self.last_occurred_at,
            "keyId": self.key_id,
            "head": self.head,
            "signature": self.signature,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Seal:
        """Read it from JSON; types are not looked at here.

        Raises:
            KeyError: a member is missing.
        """
        return cls(
            number=document["number"],
            prev=document["prev"],
            root=document["root"],
            size=document["size"],
            sealed_at=document["sealedAt"],
            first_occurred_at=document["firstOccurredAt"],
            last_occurred_at=document["lastOccurredAt"],
            key_id=document["keyId"],
            head=document["head"],
            signature=document["signature"],
        )


def new_seal(
    last: tuple[int, str] | None, leaves: Sequence[Leaf], sealed_at: str, signer: Signer | None
) -> Seal:
    """Seal a batch that is not empty.

    Args:
        last: number and head of the newest seal, None where there is none.
        leaves: in the order in which they are to be verified.
    """
    number, prev = last or (0, GENESIS)
    times = [leaf.occurred_at for leaf in leaves]
    seal = Seal(
        number=number + 1,
        prev=prev,
        root=root_of(leaf.data() for leaf in leaves).hex(),
        size=len(leaves),
        sealed_at=sealed_at,
        first_occurred_at=min(times),
        last_occurred_at=max(times),
        key_id=signer.key_id if signer else None,
        head="",
        signature=None,
    )
    head = seal.computed_head()
    return replace(seal, head=head, signature=signer.sign(head) if signer else None)
