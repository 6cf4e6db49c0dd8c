"""`python -m shadowfault_api` is `shadowfault api`."""

import sys

from shadowfault_api.main import serve

sys.exit(serve())
