"""What a simulation returns. Failure is a value, not an exception."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from tumortwin.models import TumorState


class RESULTS(eqx.Enumeration):
    """How a simulation ended; the message is the advice."""

    successful = ""
    diffusivity_above_bound = (
        "The diffusivity exceeds the bound from which the stage count was chosen, so the step is unstable: raise "
        "`max_diffusivity` of the solver or truncate the prior."
    )
    nonfinite = (
        "The state is not finite: check the parameters and the days (none before `t0`), or lower `max_step`, where "
        "there is one."
    )
    negative_density = "The density fell below -5e-5: lower `max_step`."
    max_steps_reached = (
        "The equations could not be solved in the allowed number of steps: the parameters are out of the range in "
        "which the model means something, or the model should be declared stiff."
    )
    outside_domain = (
        "A surrogate was asked beyond what it was trained on, or its own error estimate is above its tolerance: solve "
        "the model itself, or train on a wider range or this start."
    )
    colliding_events = "Two events of the moving-edge path met or changed order: keep them apart by `min_gap`."


class Trajectory(eqx.Module):
    """States at the asked times, how it went, and how far off in time it may be.

    `ts` [day]; `states.density` [time x y z]; `error_estimate` [time]: estimated relative L2 error of each state that
    comes from the time step (Richardson: the same solve with steps twice as long, difference / 3), NaN where it was not
    asked for; the spatial error is not in it. `stats`: numbers of steps and stages.
    """

    ts: Float[Array, " time"]
    states: TumorState
    result: RESULTS
    error_estimate: Float[Array, " time"]
    stats: dict[str, Any] = eqx.field(static=True)

    @property
    def succeeded(self) -> Bool[Array, ""]:
        """Whether the simulation can be used."""
        return self.result == RESULTS.successful


def judge(density: Array, diffusivity_ok: Array, events_ok: Array) -> RESULTS:
    """The result of a solve: the first thing that went wrong."""
    # Legendre stages may undershoot by a hair at sharp edges. The bound lies inside the detection floor of outlines
    # (1e-4), so that every state that counts as a success can be observed.
    lowest_allowed = -5e-5
    finite = jnp.all(jnp.isfinite(density))
    result = RESULTS.where(jnp.min(density) < lowest_allowed, RESULTS.negative_density, RESULTS.successful)
    result = RESULTS.where(finite, result, RESULTS.nonfinite)
    result = RESULTS.where(events_ok, result, RESULTS.colliding_events)
    return RESULTS.where(diffusivity_ok, result, RESULTS.diffusivity_above_bound)
