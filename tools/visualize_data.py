"""`frcnn visualize-data` as a script."""

import sys

from frcnn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["visualize-data", *sys.argv[1:]], prog="tools/visualize_data.py"))
