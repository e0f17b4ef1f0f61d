"""What a network is shown of a patient's data: a vector of fixed length."""

import abc
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tumortwin.inference import Problem


class AbstractFeatures(eqx.Module):
    """Data -> features, by the same rule for simulated and for real ones."""

    @abc.abstractmethod
    def __call__(self, values: Float[Array, " value"]) -> Float[Array, " feature"]:
        """The features of the values that count (`observed_values`), all visits and channels in a row."""


class WholeData(AbstractFeatures):
    """The values themselves: where they are few and their noise is additive (logarithms of volumes)."""

    def __call__(self, values: Float[Array, " value"]) -> Float[Array, " feature"]:
        return values


class ProjectedData(AbstractFeatures):
    """Coordinates along the modes in which noise-free data vary, and the logarithm of what no mode explains.

    $$ x = \\big(M (y - m),\\; \\log \\mathrm{rms}(y - m - M^T M (y - m))\\big), \\qquad M M^T = 1 $$

    For data with independent normal errors of one unknown size whose mean lies in the span of the modes these are
    sufficient: nothing about the parameters is lost. Modes that are left out lose what they hold.

    **Arguments:** `center` m [value], `modes` M [mode value], orthonormal (`leading_modes`).

    **Good values:** as many modes as hold all but 1e-4 of the variance; 5-20 for a tumor's density on few days.
    """

    center: Float[Array, " value"]
    modes: Float[Array, "mode value"]

    def __call__(self, values: Float[Array, " value"]) -> Float[Array, " feature"]:
        apart = values - self.center
        along = self.modes @ apart
        rest = apart - along @ self.modes
        return jnp.concatenate([along, jnp.log(jnp.sqrt(jnp.mean(rest**2)))[None]])


def leading_modes(predictions: Float[np.ndarray, "member value"], lost: float = 1e-4) -> ProjectedData:
    """The principal modes of noise-free predictions that leave at most the share `lost` of their variance.

    **Raises:** `ValueError` for fewer than two members or predictions that are not finite.
    """
    members = np.asarray(predictions, float)
    if len(members) < 2 or not np.isfinite(members).all():
        raise ValueError(
            f"required: at least two members, all finite; received: {len(members)}, of them "
            f"{int((~np.isfinite(members).all(axis=1)).sum())} not finite"
        )
    center = members.mean(axis=0)
    _, sizes, modes = np.linalg.svd(members - center, full_matrices=False)
    share = np.cumsum(sizes**2) / np.sum(sizes**2)
    kept = int(np.searchsorted(share, 1.0 - lost)) + 1
    return ProjectedData(jnp.asarray(center), jnp.asarray(modes[:kept]))


class Counted(eqx.Module):
    """Which values of a problem's data count: their places in all of them, and how many each datum has."""

    places: Int[Array, " value"]
    sizes: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, arrays: Sequence[Array]) -> Float[Array, " value"]:
        """The values that count of one array a datum."""
        return jnp.concatenate([jnp.ravel(array).astype(float) for array in arrays])[self.places]


def counted(problem: Problem) -> Counted:
    """Which values count, from concrete data (outside of `jit`)."""
    valid = [np.asarray(datum.valid).ravel() > 0 for datum in problem.data]
    return Counted(jnp.asarray(np.flatnonzero(np.concatenate(valid))), tuple(int(v.sum()) for v in valid))


def observed_values(problem: Problem) -> Float[Array, " value"]:
    """The data that count, one datum after the other as the problem holds them."""
    return counted(problem)([datum.values for datum in problem.data])
