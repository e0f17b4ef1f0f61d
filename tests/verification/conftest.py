"""The claims of `experiments/verification` are tested here in small: the repository's root must be importable."""

import sys
from pathlib import Path

_ROOT = str(Path(__file__).parents[2])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)
