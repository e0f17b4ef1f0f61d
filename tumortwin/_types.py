"""Shape words shared by every room (jaxtyping; checked under test only)."""

from typing import TypeAlias

import numpy as np
from jaxtyping import Array, Bool, Float

Field: TypeAlias = Float[Array, "x y z"]
Mask: TypeAlias = Bool[Array, "x y z"]
NpField: TypeAlias = Float[np.ndarray, "x y z"]
NpMask: TypeAlias = Bool[np.ndarray, "x y z"]
Fields: TypeAlias = Float[Array, "time x y z"]
Times: TypeAlias = Float[Array, " time"]
Events: TypeAlias = Float[Array, " event"]
ScalarLike: TypeAlias = Float[Array, ""] | float
FieldOrScalar: TypeAlias = Float[Array, "x y z"] | Float[Array, ""]
