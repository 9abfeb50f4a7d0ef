"""`frcnn train` as a script."""

import sys

from frcnn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]], prog="tools/train_net.py"))
