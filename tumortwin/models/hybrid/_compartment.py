"""A model without space and a closure: the same contract as the model alone."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin.models.compartment import AbstractCompartmentModel, AbstractFlow, AbstractPacedFlow, AbstractRates
from tumortwin.models.hybrid._closure import AbstractClosure, RelativeClosure


def rate_of(model: AbstractCompartmentModel, state: Any, exposure: Float[Array, "..."]) -> Any:
    """d(state)/dt [1/day] of any model without space: of one solved in closed form, its derivative at duration 0."""
    if isinstance(model, AbstractRates):
        return model.rate(state, exposure)
    assert isinstance(model, AbstractFlow | AbstractPacedFlow)
    zero = jnp.zeros_like(model.burden(state))
    _, slope = jax.jvp(lambda duration: model.advance(state, duration, exposure), (zero,), (jnp.ones_like(zero),))
    if isinstance(model, AbstractFlow):
        return slope
    pace = model.pace(state, exposure)
    return jax.tree.map(lambda x: x * pace.reshape(*pace.shape, *(1,) * (x.ndim - pace.ndim)), slope)


class HybridRates(AbstractRates):
    """Any model without space with a closure on its rates, solved numerically.

    $$ \\dot x = f_{mech}(x, \\theta, u) \\;\\text{corrected by the closure} $$

    **State:** that of the mechanism. **Exposure:** as the mechanism wants it; **dose:** the mechanism's jump.

    **Arguments:** `mechanism` any model (one that is solved in closed form gives its derivative); `closure`;
    `features` [*batch feature] of the subjects, further inputs of its network, of order one (none). Paths of
    parameters: `mechanism.growth_rate`, `closure.network.weights`.

    **Good values:** those of the mechanism; see `RelativeClosure` and `PerCapitaClosure`.

    **Limits:** needs data that the mechanism cannot explain; the closure knows nothing outside of its range.

    **Reference:** Rackauckas et al., arXiv:2001.04385.
    """

    mechanism: AbstractCompartmentModel
    closure: AbstractClosure
    features: Float[Array, "*batch feature"] | None

    reference: ClassVar[str] = "arXiv:2001.04385"

    def __init__(
        self, mechanism: AbstractCompartmentModel, closure: AbstractClosure, features: Array | None = None
    ) -> None:
        self.mechanism, self.closure, self.features = mechanism, closure, features

    @property
    def stiff(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the mechanism is."""
        return isinstance(self.mechanism, AbstractRates) and self.mechanism.stiff

    def initial(self) -> Any:
        """That of the mechanism."""
        return self.mechanism.initial()

    def burden(self, state: Any) -> Float[Array, "..."]:
        """That of the mechanism."""
        return self.mechanism.burden(state)

    def jump(self, state: Any, dose: Float[Array, "..."]) -> Any:
        """That of the mechanism."""
        return self.mechanism.jump(state, dose)

    def rate(self, state: Any, exposure: Float[Array, "..."]) -> Any:
        """The mechanism's rates, corrected."""
        slopes = rate_of(self.mechanism, state, exposure)
        return self.closure.apply(slopes, state, exposure, self.mechanism.burden(state).shape, self.features)


class HybridFlow(AbstractPacedFlow):
    """A model that is solved in closed form, made faster or slower by a closure: its flow on a clock of its own.

    $$ \\dot x = f(x)\\,(1 + c(x)) \\;\\Leftrightarrow\\; x(t) = \\Phi_{\\tau(t)}(x_0),\\qquad
       \\dot\\tau = 1 + c\\big(\\Phi_\\tau(x_0)\\big) $$

    Only the clock is solved numerically; with an untrained closure it is the time, and the hybrid the mechanism to
    rounding.

    **State:** that of the mechanism. **Exposure:** as the mechanism wants it; **dose:** the mechanism's jump.

    **Arguments:** `mechanism` a flow; `closure` of one output; `features` [*batch feature] of the subjects, further
    inputs of its network, of order one (none).

    **Good values:** see `RelativeClosure`.

    **Limits:** those of `RelativeClosure`.

    **Reference:** Rackauckas et al., arXiv:2001.04385 (the form; the clock is this framework's).
    """

    mechanism: AbstractFlow
    closure: RelativeClosure
    features: Float[Array, "*batch feature"] | None = None

    reference: ClassVar[str] = "arXiv:2001.04385"

    def __check_init__(self) -> None:
        if not _is_clock(self.closure):
            raise ValueError(
                "required: a closure of one output on all variables (one clock); received: "
                f"{self.closure.network.outputs} on {self.closure.variables or 'all'}; try: HybridRates"
            )

    def initial(self) -> Any:
        """That of the mechanism."""
        return self.mechanism.initial()

    def burden(self, state: Any) -> Float[Array, "..."]:
        """That of the mechanism."""
        return self.mechanism.burden(state)

    def jump(self, state: Any, dose: Float[Array, "..."]) -> Any:
        """That of the mechanism."""
        return self.mechanism.jump(state, dose)

    def advance(self, state: Any, duration: Float[Array, "..."], exposure: Float[Array, "..."]) -> Any:
        """The mechanism's state when its clock has gone on by `duration`."""
        return self.mechanism.advance(state, duration, exposure)

    def pace(self, state: Any, exposure: Float[Array, "..."]) -> Float[Array, "..."]:
        """1 + c(x)."""
        batch = self.mechanism.burden(state).shape
        return 1.0 + self.closure.correction(state, exposure, batch, self.features)[..., 0]


def with_closure(
    mechanism: AbstractCompartmentModel, closure: AbstractClosure, features: Array | None = None
) -> HybridRates | HybridFlow:
    """The hybrid of a mechanism and a closure: on a clock of its own where that is possible, else by its rates."""
    if isinstance(mechanism, AbstractFlow) and isinstance(closure, RelativeClosure) and _is_clock(closure):
        return HybridFlow(mechanism, closure, features)
    return HybridRates(mechanism, closure, features)


def correction_penalty(correction: Float[Array, "..."], scale: float = 1.0) -> Float[Array, ""]:
    """The mean square of what a closure says (`closure.correction` at states that matter), over `scale` squared: a
    penalty on the residual itself, for a loss."""
    return jnp.mean((correction / scale) ** 2)


def _is_clock(closure: AbstractClosure) -> bool:
    return closure.network.outputs == 1 and closure.variables is None
