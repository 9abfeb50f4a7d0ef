"""`python -m frcnn` is the `frcnn` program."""

import sys

from frcnn.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
