"""`frcnn convert-weights` as a script."""

import sys

from frcnn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["convert-weights", *sys.argv[1:]], prog="tools/convert_weights.py"))
