"""Ed25519 signatures of seals. A key is named by the SHA-256 of its 32 public bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

if TYPE_CHECKING:
    from pathlib import Path

# A signature made for this cannot be taken for one of anything else the key may sign.
_CONTEXT: Final = "shadowfault-evidence-seal-v1:"


class KeyFileError(Exception):
    """A key file that cannot be used; the message says why and never quotes it."""


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs heads."""

    key: Ed25519PrivateKey
    key_id: str

    def sign(self, head: str) -> str:
        """Sign a head; 128 hex digits."""
        return self.key.sign(_message(head)).hex()


@dataclass(frozen=True, slots=True)
class Verifier:
    """Verifies what a `Signer` with the same key signed."""

    key: Ed25519PublicKey
    key_id: str

    def accepts(self, head: str, signature: str) -> bool:
        """Tell whether this key signed this head."""
        try:
            self.key.verify(bytes.fromhex(signature), _message(head))
        except (InvalidSignature, ValueError):
            return False
        return True


def load_signer(path: Path) -> Signer:
    """Read a private key: PEM, PKCS #8, not encrypted (`openssl genpkey -algorithm ed25519`).

    Raises:
        KeyFileError: no file, or not such a key.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise KeyFileError(f"cannot read the signing key {path}: {error.strerror}") from None
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(
            f"{path} is no Ed25519 private key in PEM without a password: "
            "make one with `openssl genpkey -algorithm ed25519`"
        )
    return Signer(key, key_id(key.public_key()))


def load_verifier(path: Path) -> Verifier:
    """Read a public key: PEM (`openssl pkey -in key.pem -pubout`).

    Raises:
        KeyFileError: no file, or not such a key.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise KeyFileError(f"cannot read the public key {path}: {error.strerror}") from None
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(
            f"{path} is no Ed25519 public key in PEM: make it with `openssl pkey -in signing.pem -pubout`"
        )
    return Verifier(key, key_id(key))


def key_id(key: Ed25519PublicKey) -> str:
    """Name a key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def _message(head: str) -> bytes:
    return f"{_CONTEXT}{head}".encode()
