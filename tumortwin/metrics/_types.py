"""Shape words of host arrays, without JAX: scores and reports count without it."""

from typing import TypeAlias

import numpy as np
from jaxtyping import Bool

NpMask: TypeAlias = Bool[np.ndarray, "x y z"]
