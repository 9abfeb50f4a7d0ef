"""`frcnn make-shapes` as a script."""

import sys

from frcnn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["make-shapes", *sys.argv[1:]], prog="tools/make_shapes.py"))
