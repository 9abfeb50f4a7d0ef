"""`frcnn analyze-model` as a script."""

import sys

from frcnn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["analyze-model", *sys.argv[1:]], prog="tools/analyze_model.py"))
