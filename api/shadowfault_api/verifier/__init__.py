"""The verifier: compares primary and shadow, tells why they differ, and leaves evidence.

`model`, `compare`, `judge` and `ledger` decide, without a database; `readers`, `recorder`, `runs` and `lock`
speak to the databases; `run` puts them together.
"""

from shadowfault_api.verifier.errors import VerificationError
from shadowfault_api.verifier.report import VerifierReport
from shadowfault_api.verifier.run import VerifierOptions, verify_stores

__all__ = ["VerificationError", "VerifierOptions", "VerifierReport", "verify_stores"]
