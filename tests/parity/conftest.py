"""Makes the helpers of these tests importable: the models to compare, and the weights that fill them."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "golden")]
