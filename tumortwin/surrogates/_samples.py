"""Simulated tumors: what a surrogate learns from and is held against."""

import dataclasses
from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from tumortwin._chunks import in_chunks
from tumortwin.models import ReactionDiffusion
from tumortwin.params import set_parameters
from tumortwin.solvers import FixedSteps, simulate
from tumortwin.surrogates._design import Design
from tumortwin.treatments import Schedule


@dataclasses.dataclass(frozen=True)
class Samples:
    """Tumors of a design, as the model has them.

    `density` [sample day x y z]; `error_estimate` [sample day]: relative L2 error that comes from the time step
    (Richardson); `succeeded` [sample].
    """

    design: Design
    days: tuple[float, ...]
    density: Float[np.ndarray, "sample day x y z"]
    error_estimate: Float[np.ndarray, "sample day"]
    succeeded: Bool[np.ndarray, " sample"]

    def snapshots(self) -> Float[np.ndarray, "snapshot voxel"]:
        """The densities of the samples whose solve succeeded, one row a day."""
        chosen = self.density[self.succeeded]
        return chosen.reshape(-1, int(np.prod(self.density.shape[2:])))


def simulate_samples(
    models: Sequence[ReactionDiffusion],
    schedules: Sequence[Schedule],
    design: Design,
    days: Sequence[float],
    solver: FixedSteps,
    *,
    estimate_error: bool = True,
) -> Samples:
    """Every sample of a design, solved one after another (on a CPU as many side by side as there are cores).

    **Arguments:** `models`: one an anatomy, of one grid shape; `schedules`: what `design.schedule` counts into;
    `estimate_error`: as `simulate` has it (without: NaN, at some 0.6 of the time).

    **Raises:** `ValueError` for a design that counts beyond the models or schedules.
    """
    if design.size and (design.anatomy.max() >= len(models) or design.schedule.max() >= len(schedules)):
        raise ValueError(
            f"required: a design of {len(models)} anatomies and {len(schedules)} schedules; received: one of "
            f"{design.anatomy.max() + 1} and {design.schedule.max() + 1}"
        )
    asked = tuple(float(d) for d in days)
    shape = models[0].tissue.grid.shape
    density = np.zeros((design.size, len(asked), *shape), np.float32)
    error, succeeded = np.zeros((design.size, len(asked))), np.zeros(design.size, bool)
    for a, s in sorted(set(zip(design.anatomy.tolist(), design.schedule.tolist(), strict=True))):
        rows = np.flatnonzero((design.anatomy == a) & (design.schedule == s))
        values = {path: np.asarray(value)[rows] for path, value in design.values.items()}
        found = in_chunks(
            lambda part, a=a, s=s: _solved(models[a], schedules[s], solver, part, asked, estimate_error), values
        )
        density[rows], error[rows], succeeded[rows] = (np.asarray(x) for x in found)
    return Samples(design, asked, density, error, succeeded)


@eqx.filter_jit
def _solved(
    model: ReactionDiffusion,
    schedule: Schedule,
    solver: FixedSteps,
    values: Mapping[str, Array],
    days: tuple[float, ...],
    estimate_error: bool,
) -> tuple[Array, Array, Array]:
    def one(row: Mapping[str, Array]) -> tuple[Array, Array, Array]:
        found = simulate(set_parameters(model, row), schedule, days, solver, estimate_error=estimate_error)
        return found.states.density.astype(jnp.float32), found.error_estimate, found.succeeded

    return jax.lax.map(one, dict(values))
