"""Makes detectron2's YAML files importable."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
