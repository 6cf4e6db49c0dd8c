"""The verifier: compares primary and shadow, tells why they differ, and leaves evidence.

`model`, `compare`, `judge`, `ledger` and `sweep` decide, without a database; `readers`, `recorder`,
`sweep_store`, `runs` and `lock` speak to the databases; `passes` and `run` put them together.
"""

from shadowfault_api.verifier.errors import VerificationError
from shadowfault_api.verifier.options import Mode, VerifierOptions
from shadowfault_api.verifier.report import VerifierReport
from shadowfault_api.verifier.run import verify_stores

__all__ = ["Mode", "VerificationError", "VerifierOptions", "VerifierReport", "verify_stores"]
