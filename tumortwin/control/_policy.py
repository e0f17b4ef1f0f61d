"""Feedback: what is given next follows from what is seen. Stop and restart thresholds, and plans over them."""

import abc
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from tumortwin import units
from tumortwin.control._decision import AbstractParametrization, DecisionSpace
from tumortwin.treatments import Course


class AbstractFeedbackPolicy(eqx.Module):
    """A rule from what is seen at a visit to what is given until the next; its memory is explicit."""

    @abc.abstractmethod
    def start(self, observed: Float[Array, ""]) -> PyTree:
        """The memory before the first visit, given the baseline."""

    @abc.abstractmethod
    def decide(self, memory: PyTree, observed: Float[Array, ""]) -> tuple[PyTree, Float[Array, ""]]:
        """The memory after a visit, and the dose (0 to 1 of the full dose) until the next."""


class HysteresisPolicy(AbstractFeedbackPolicy):
    """Adaptive therapy: stop below one threshold, restart above another, keep on in between.

    $$ on \\leftarrow \\begin{cases} 0 & N \\le stop \\cdot N_0 \\\\ 1 & N \\ge restart \\cdot N_0 \\\\ on & else
       \\end{cases} $$

    Thresholds are shares of the baseline N_0, what was seen first. Equal thresholds are a single one (given at or above
    it, not below). Treatment starts on.

    **Good values:** stop 0.5, restart 1 (Zhang et al. 2017); stop 0.8, restart 1.

    **Limits:** a switch has no gradient: plan thresholds with `Exhaustive` or `CovarianceAdaptation` (mathematical).

    **Reference:** Zhang, Cunningham, Brown and Gatenby, "Integrating evolutionary dynamics into treatment of
    metastatic castrate-resistant prostate cancer", Nat Commun 8 (2017).
    """

    stop: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.FRACTION})
    restart: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.FRACTION})

    def start(self, observed: Float[Array, ""]) -> tuple[Array, Array]:
        return jnp.asarray(observed), jnp.ones_like(observed)

    def decide(
        self, memory: tuple[Array, Array], observed: Float[Array, ""]
    ) -> tuple[tuple[Array, Array], Float[Array, ""]]:
        baseline, on = memory
        above = observed >= self.restart * baseline
        below = observed < self.stop * baseline
        on = jnp.where(above, 1.0, jnp.where(below, 0.0, on))
        return (baseline, on), on


class ConstantPolicy(AbstractFeedbackPolicy):
    """The same `dose` at every visit, whatever is seen: 1 is continuous therapy, 0 none."""

    dose: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.FRACTION})

    def start(self, observed: Float[Array, ""]) -> tuple[()]:
        del observed
        return ()

    def decide(self, memory: tuple[()], observed: Float[Array, ""]) -> tuple[tuple[()], Float[Array, ""]]:
        return memory, self.dose * jnp.ones_like(observed)


class SchedulePolicy(AbstractFeedbackPolicy):
    """A schedule as a rule: visit after visit the `doses` [visit], whatever is seen; the last again after its end."""

    doses: Float[Array, " visit"] = eqx.field(converter=jnp.asarray, metadata={"unit": units.FRACTION})

    def start(self, observed: Float[Array, ""]) -> Array:
        return jnp.zeros_like(observed, int)

    def decide(self, memory: Array, observed: Float[Array, ""]) -> tuple[Array, Float[Array, ""]]:
        dose = self.doses[jnp.minimum(memory, self.doses.shape[0] - 1)]
        return memory + 1, dose.astype(observed.dtype)


class AbstractRule(AbstractParametrization):
    """A plan that is a rule of a few numbers u: what is given follows from what is seen, no dose is known beforehand.

    The burden function takes what `schedule` returns (a policy, or the numbers themselves) and runs the closed loop.
    """

    def variables(self, vector: Float[Array, " n"]) -> Float[Array, " n"]:
        return vector

    def vector(self, variables: Float[Array, " n"]) -> Float[Array, " n"]:
        return variables

    def courses(self, variables: Float[Array, " n"]) -> dict[str, Course]:
        del variables
        return {}

    @property
    def affine_doses(self) -> bool:
        return True

    @property
    def fixed_times(self) -> bool:
        return True

    def cost(self, variables: Float[Array, " n"]) -> Mapping[str, float]:
        del variables
        return {}


def _pair(bounds: Any) -> tuple[float, float]:
    low, high = bounds
    return float(low), float(high)


class PolicyThresholds(AbstractRule):
    """A plan that is a rule: u = (stop, width), the `HysteresisPolicy` with restart = stop + width.

    **Arguments:** bounds of `stop` and `width`, shares of the baseline.

    **Good values:** stop 0.2-1.1, width 0-0.5.
    """

    stop: tuple[float, float] = eqx.field(static=True, default=(0.2, 1.0), converter=_pair)
    width: tuple[float, float] = eqx.field(static=True, default=(0.0, 0.5), converter=_pair)

    @property
    def space(self) -> DecisionSpace:
        low, high = (np.asarray([self.stop[k], self.width[k]], dtype=float) for k in (0, 1))
        return DecisionSpace(low, high, np.zeros(2, bool), ("stop", "width"), (units.FRACTION, units.FRACTION))

    def schedule(self, variables: Float[Array, " n"]) -> HysteresisPolicy:
        return HysteresisPolicy(variables[0], variables[0] + variables[1])

    def describe(self, variables: Float[Array, " n"]) -> dict[str, Any]:
        return {"stop": float(variables[0]), "restart": float(variables[0] + variables[1])}

    def sentence(self, variables: Float[Array, " n"]) -> str:
        stop, restart = float(variables[0]), float(variables[0] + variables[1])
        return f"stop when the burden is below {stop:.0%} of its first value, restart at {restart:.0%}"
