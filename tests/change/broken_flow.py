"""The flow with a fault: see `broken_engine`."""

import sys

from flows.flow import main
from tests.change.broken_engine import break_it

if __name__ == "__main__":
    break_it()
    sys.exit(main())
