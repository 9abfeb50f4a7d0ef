"""`frcnn visualize-results` as a script."""

import sys

from frcnn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["visualize-results", *sys.argv[1:]], prog="tools/visualize_results.py"))
