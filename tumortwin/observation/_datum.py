"""One visit, one channel: values, where they are valid, and how much they count."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

# What stands in an invalid voxel: a value that every noise model accepts (a mask, a cellularity, a volume).
PLACEHOLDER = 1.0


class Datum(eqx.Module):
    """What was seen at one visit in one channel. A missing visit is simply no `Datum`.

    **Arguments:**

    - `day`: time since the first visit [day], static.
    - `channel`: name of the observation that explains it, static.
    - `values`: the data, any shape (`x y z` for an image, scalar for a volume).
    - `valid`: 0/1 (or a share) per value; `None` means that all are valid. Invalid values may be NaN.
    - `weight`: the power-likelihood weight `V_voxel / V_corr` of this visit and channel; an array, so that a change
      compiles nothing anew.

    **Raises:** `ValueError` for shapes that disagree, non-finite values where valid, or no valid value at all.
    """

    day: float = eqx.field(static=True)
    channel: str = eqx.field(static=True)
    values: Inexact[Array, "..."]
    valid: Inexact[Array, "..."]
    weight: Float[Array, ""]

    def __init__(
        self,
        day: float,
        channel: str,
        values: Array | np.ndarray | float,
        valid: Array | np.ndarray | None = None,
        weight: Array | float = 1.0,
    ) -> None:
        name = f"datum {channel!r} of day {float(day):g}"
        data = np.asarray(values)
        data = data if np.issubdtype(data.dtype, np.floating) else data.astype(float)
        mask = np.ones(data.shape, data.dtype) if valid is None else np.asarray(valid).astype(data.dtype)
        if mask.shape != data.shape:
            raise ValueError(
                f"required: `valid` of the shape of `values` {data.shape} in {name}; received: {mask.shape}"
            )
        if not (mask > 0).any() or (mask < 0).any() or not np.isfinite(mask).all():
            raise ValueError(
                f"required: at least one valid value and no negative or non-finite entry of `valid` in {name}; "
                "received: none or a bad one; try: leave a missing visit out"
            )
        if not np.isfinite(data[mask > 0]).all():
            raise ValueError(
                f"required: finite values where valid in {name}; received: NaN or inf; try: mark them invalid"
            )
        if not (np.isfinite(float(weight)) and float(weight) >= 0):
            raise ValueError(f"required: a finite weight >= 0 in {name}; received: {float(weight)}")
        self.day = float(day)
        self.channel = channel
        self.values = jnp.asarray(np.where(mask > 0, data, data.dtype.type(PLACEHOLDER)))
        self.valid = jnp.asarray(mask)
        self.weight = jnp.asarray(weight, dtype=float)

    @property
    def name(self) -> str:
        """`<channel>@<day>`, unique within a problem."""
        return f"{self.channel}@{self.day:g}"
