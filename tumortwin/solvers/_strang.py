"""The Diffrax solver: Strang splitting of exact growth-and-kill and RKL2 diffusion."""

from typing import Any, ClassVar, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin.geometry import Faces
from tumortwin.models import NeuralProliferation
from tumortwin.solvers._reaction import SubStep, react
from tumortwin.solvers._rkl import diffuse, diffuse_plain, log_carrier, stage_weight


class StepKill(NamedTuple):
    """Growth and kill of one step: what is left of the step before, and the first half of this one; `width` [day]."""

    before: SubStep
    first: SubStep
    width: Float[Array, ""]


class TabulatedKill(diffrax.AbstractPath):
    """A log-kill path known on a table of consecutive steps; `evaluate(a, b)` returns the step from a to b."""

    t0: Float[Array, ""]
    t1: Float[Array, ""]
    edges: Float[Array, " edge"]
    steps: StepKill

    @classmethod
    def of(cls, edges: Float[Array, " edge"], halves: SubStep) -> "TabulatedKill":
        """From the table of half steps."""
        first, second = (jax.tree.map(lambda leaf, k=k: leaf[k::2], halves) for k in range(2))
        # Nothing is left over at the start: a sub-step of no width.
        nothing = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[:1]), second)
        before = jax.tree.map(lambda a, b: jnp.concatenate([a, b[:-1]]), nothing, second)
        return cls(edges[0], edges[-1], edges, StepKill(before, first, first.width + second.width))

    def evaluate(self, t0: Any, t1: Any = None, left: bool = True) -> StepKill:
        """The step whose ends are `t0` and `t1` (they must be neighbours in the table)."""
        del left
        middle = 0.5 * (t0 + t1)
        edges = jax.lax.stop_gradient(self.edges).astype(middle.dtype)
        index = jnp.clip(jnp.searchsorted(edges, middle, side="right") - 1, 0, self.edges.shape[0] - 2)
        return jax.tree.map(lambda leaf: leaf[index], self.steps)


class EdgeInterpolation(diffrax.AbstractLocalInterpolation):
    """Linear between two step edges and exact, to the bit, on them; keeps the dtype of the state."""

    t0: Float[Array, ""]
    t1: Float[Array, ""]
    y0: Array
    y1: Array

    def evaluate(self, t0: Any, t1: Any = None, left: bool = True) -> Array:
        """The state at `t0`, or the increment from `t0` to `t1`."""
        del left
        if t1 is not None:
            return self.evaluate(t1) - self.evaluate(t0)
        width = jnp.where(self.t1 > self.t0, self.t1 - self.t0, 1.0)
        share = ((t0 - self.t0) / width).astype(self.y0.dtype)
        return (1.0 - share) * self.y0 + share * self.y1


class Closure(eqx.Module):
    """What makes the growth rate depend on the density: a network, and the ringed tissue of every place."""

    proliferation: NeuralProliferation
    places: Float[Array, "x y z field"]

    def factor(self, density: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
        """1 + b tanh NN at every place."""
        return self.proliferation.factor(density, self.places)


class StepCoefficients(eqx.Module):
    """What a step needs beside the state: growth rate and conductances.

    `faces`: ringed conductances at the true diffusivity [1/day], or, when `prescaled`, times step * stage weight (one
    step size for the whole solve, no scaling inside the loop). `rate` [1/day]: scalar, or ringed field. `log_scale`:
    zero, with the derivative of the logarithm of what multiplies all `faces` but is not differentiated in them.
    `closure`: what multiplies the rate by a function of the density, or None.
    """

    faces: Faces
    rate: Array
    log_scale: Array
    closure: Closure | None = None
    prescaled: bool = eqx.field(static=True, default=False)

    def rate_at(self, density: Float[Array, "x y z"]) -> Array:
        """The growth rate [1/day] at a density."""
        return self.rate if self.closure is None else self.rate * self.closure.factor(density)


def along_last_axis(scalar: Float[Array, ""], like: Float[Array, "x y z"]) -> Float[Array, "1 1 z"]:
    """A run-time scalar as a vector along the last axis, in the dtype of `like`.

    XLA fuses a scaling of the faces into the stencil; with a run-time scalar the fused loop is not vectorized (4 times
    slower), with a vector it is. The small product keeps XLA from seeing that the vector is constant.
    """
    halves = jnp.full((like.shape[-1], 2), 0.5, like.dtype)
    vector = jax.lax.optimization_barrier(halves @ jnp.stack([scalar, scalar]).astype(like.dtype))
    return vector[None, None, :]


class StrangRKL2(diffrax.AbstractSolver):
    """Second-order splitting for reaction-diffusion with treatment jumps.

    $$ u^{n+1} = R_{h/2}\\,\\mathcal{L}_h\\,R_{h/2}\\,u^n $$

    `R` advances growth and kill exactly (`react`), `L` diffusion by one RKL2 super-step. A spatially uniform kill
    commutes with diffusion, so events need not be step edges for second order: an event inside a half step is applied
    at its own time within `R`.

    The state between steps is the density *before* the second half of growth and kill, which the next step (or whoever
    saves it: `solve_on_edges`) makes up for: neighbouring halves are one pass, and the reverse pass, which starts from
    the kept states, needs no diffusion of the density again.

    **Arguments:** `stages` static, from `stage_count`; `forward_mode` True for the plain kernel (jvp instead of vjp).

    **Reference:** Strang, SIAM J. Numer. Anal. 5 (1968) 506-517, doi:10.1137/0705041; Meyer et al. 2014 (RKL2).
    """

    stages: int = eqx.field(static=True)
    forward_mode: bool = eqx.field(static=True, default=False)

    term_structure: ClassVar = diffrax.MultiTerm[tuple[diffrax.ODETerm, diffrax.ControlTerm]]
    interpolation_cls: ClassVar = EdgeInterpolation

    def order(self, terms: Any) -> int:
        """Two."""
        del terms
        return 2

    def init(self, terms: Any, t0: Any, t1: Any, y0: Array, args: StepCoefficients) -> None:
        """No state is carried between steps."""
        del terms, t0, t1, y0, args

    def step(
        self, terms: Any, t0: Any, t1: Any, y0: Array, args: StepCoefficients, solver_state: None, made_jump: Any
    ) -> tuple[Array, None, dict[str, Array], None, diffrax.RESULTS]:
        """One step from t0 to t1 on a ringed density, up to the growth and kill of its second half."""
        del solver_state, made_jump
        kill = terms.terms[1].contr(t0, t1)
        rate = args.rate
        if args.closure is not None:
            # Midpoint: the factor at the density between the two halves, which a first half at the old one predicts.
            middle = react(y0, args.rate_at(y0), kill.before, forward_mode=self.forward_mode)
            rate = args.rate_at(middle)
        y = react(y0, rate, kill.before, kill.first, forward_mode=self.forward_mode)
        y = jax.lax.optimization_barrier(y)
        faces, log_scale = args.faces, args.log_scale
        if not args.prescaled:
            log_scale = log_scale + log_carrier(kill.width)
            width = kill.width if self.forward_mode else jax.lax.stop_gradient(kill.width)
            factor = along_last_axis(width * stage_weight(self.stages), y0)
            faces = Faces(*(f * factor for f in faces))
        if self.forward_mode:
            y = diffuse_plain(y, faces, self.stages)
        else:
            y = diffuse(y, faces, self.stages, log_scale)
        y1 = jax.lax.optimization_barrier(y)
        return y1, None, dict(y0=y0, y1=y1), None, diffrax.RESULTS.successful

    def func(self, terms: Any, t0: Any, y0: Array, args: StepCoefficients) -> Array:
        """The vector field of the smooth part."""
        return terms.terms[0].vf(t0, y0, args)
