"""Importing frcnn costs milliseconds and no torch."""

from __future__ import annotations

import re
import subprocess
import sys


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)


def test_importing_frcnn_imports_no_heavy_library() -> None:
    code = "import sys, frcnn; print(sorted({'torch', 'torchvision', 'numpy', 'cv2', 'yaml'} & set(sys.modules)))"
    assert python("-c", code).stdout.strip() == "[]"


def test_importing_frcnn_takes_less_than_50_ms() -> None:
    def milliseconds() -> float:
        report = python("-X", "importtime", "-c", "import frcnn").stderr
        cumulative = re.search(r"\|\s+(\d+) \| frcnn$", report, re.MULTILINE)
        assert cumulative is not None
        return int(cumulative[1]) / 1000

    assert min(milliseconds() for _ in range(3)) < 50  # the least of three: other programs may be busy


def test_the_predict_command_explains_itself_without_torch() -> None:
    code = (
        "import sys, argparse, frcnn.cli.predict as verb\n"
        "parser = argparse.ArgumentParser(); verb.add_arguments(parser); parser.format_help()\n"
        "print('torch' in sys.modules)"
    )
    assert python("-c", code).stdout.strip() == "False"
