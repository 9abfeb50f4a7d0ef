"""The `frcnn` program: finds the verb, and turns mistakes of the user into one line instead of a stack trace."""

from __future__ import annotations

import argparse
import importlib
import os
import select
import sys
from collections.abc import Sequence

from frcnn import __version__
from frcnn.errors import UserError

VERBS = {
    "train": "train a detector from a YAML file, resume a run, or evaluate a checkpoint",
    "predict": "detect objects in images with a trained checkpoint",
    "benchmark": "compare variants: AP over seeds with its uncertainty, latency, memory, FLOPs",
    "analyze-model": "parameters, FLOPs and activations of a detector, module by module",
    "visualize-data": "pictures of training images as the network sees them",
    "visualize-results": "pictures of detections beside the ground truth",
    "list": "the components that a config can name",
    "explain": "one component: what it is, how it is written, its options",
    "new-project": "make a folder in projects/ with a component, a config and a test that work",
    "fit-anchors": "propose anchor sizes and ratios for a data set, with the recall before and after",
    "convert-weights": "turn published weights of torchvision and detectron2 into a checkpoint",
    "convert-dataset": "write the annotations of Pascal VOC or Cityscapes as a COCO JSON file",
    "import-config": "write our YAML for a detectron2 YAML",
    "make-shapes": "generate the synthetic data set of circles, squares and triangles",
}


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs one verb.

    Args:
        argv: the words behind the program's name; the process's own if None.
        prog: what help texts call the program, for the scripts in tools/.

    Returns:
        the exit code: 0, 2 for a mistake in the input, which is then on stderr, 141 if nobody reads the output any more.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if words[0] == "--version":
        print(f"frcnn {__version__}")
        return 0
    verb = words[0]
    if verb not in VERBS:
        from frcnn.config.problems import nearest

        guess = nearest(verb, VERBS)
        hint = f"did you mean {guess!r}? " if guess else ""
        print(f"error: there is no verb {verb!r}; {hint}choices: {', '.join(VERBS)}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"frcnn.cli.{verb.replace('-', '_')}")
    parser = argparse.ArgumentParser(
        prog=prog or f"frcnn {verb}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=verb != "train",
    )
    module.add_arguments(parser)
    try:
        code = module.run(parser.parse_intermixed_args(words[1:]))
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a missing permission: the system's words name the file
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return 141
        print(f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _nobody_reads() -> bool:
    """Whether it is the output that was closed, as by `| head`; then nothing is said about it, at the exit neither."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _usage() -> str:
    width = max(map(len, VERBS))
    rows = "\n".join(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items())
    title = f"frcnn {__version__}: Faster R-CNN that can be taken apart and put together differently"
    return f"{title}\n\nusage: frcnn VERB ...\n\n{rows}\n\n`frcnn VERB --help` says more."


if __name__ == "__main__":
    sys.exit(main())
