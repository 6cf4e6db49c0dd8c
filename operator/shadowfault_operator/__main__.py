"""`python -m shadowfault_operator`: the operator as a process."""

import sys

from shadowfault_operator.main import run

sys.exit(run())
