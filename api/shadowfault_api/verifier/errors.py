"""Why a verification could not be made. The messages are for people, and hold no password and no row."""

from __future__ import annotations


class VerificationError(Exception):
    """The stores could not be compared; nothing is known about the rest of them. Exit status 2."""


class UnreachableError(VerificationError):
    """A database did not answer, or stopped answering."""


class SchemaError(VerificationError):
    """A database answers and has not the tables."""


class AlreadyRunningError(VerificationError):
    """Another verifier works on this primary."""


class LostError(VerificationError):
    """What the run held is another's by now."""


class ShardError(VerificationError):
    """A shard cannot take part in its run."""


class StoppedError(VerificationError):
    """The caller asked for the end."""


class TooSlowError(UnreachableError):
    """A statement took longer than it may: a smaller one may not."""


class UnprovenError(VerificationError):
    """The servers do not digest alike."""
