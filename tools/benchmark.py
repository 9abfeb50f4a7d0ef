"""`frcnn benchmark` as a script."""

import sys

from frcnn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", *sys.argv[1:]], prog="tools/benchmark.py"))
