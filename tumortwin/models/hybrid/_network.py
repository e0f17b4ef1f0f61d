"""The bounded network of a closure: its weights are measured from where it says nothing."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from tumortwin._types import ScalarLike
from tumortwin.params import parameter


class Network(eqx.Module):
    """A multi-layer perceptron (Equinox) whose outputs are bounded, and 0 until it has learned something.

    $$ c(x) = \\tanh\\big(\\mathrm{MLP}_{w_0 + w}(x)\\big), \\qquad c(x) \\equiv 0 \\;\\text{at}\\; w = 0 $$

    The origin w_0 is drawn once (hidden layers as Equinox draws them, the output layer 0) and never moves; the weights
    w are one flat vector that a prior may address by its path, start at 0, and say how far the network is from saying
    nothing. A normal prior about 0 has its mode there, and the slope of a loss does not vanish there as it would at a
    network of zeros.

    **Arguments:** `origin` w_0, `weights` w [weight]; sizes are static. Make one with `Network.create`.

    **Good values:** 8-16 wide, 2 deep; a prior of spread .1-.5 on w.

    **Limits:** hidden layers are tanh; inputs should be of order one (for convenience).

    **Reference:** Rackauckas et al., arXiv:2001.04385 (universal differential equations).
    """

    origin: Float[Array, " weight"]
    inputs: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    weights: Float[Array, " weight"] = parameter(unit="1")

    def __check_init__(self) -> None:
        size = _size(self.inputs, self.outputs, self.width, self.depth)
        if self.origin.shape != (size,) or self.weights.shape != (size,):
            raise ValueError(
                f"required: {size} weights of a network {self.inputs} -> {self.depth} x {self.width} -> "
                f"{self.outputs}; received: {self.origin.shape} and {self.weights.shape}; try: Network.create"
            )

    @classmethod
    def create(
        cls, inputs: int, outputs: int = 1, width: int = 16, depth: int = 2, *, key: Array, dtype: Any = None
    ) -> "Network":
        """A network that says nothing yet; `depth` hidden layers of `width` units."""
        if min(inputs, outputs, width, depth) < 1:
            raise ValueError(
                f"required: at least one input, output, unit and hidden layer; received: {inputs}, {outputs}, "
                f"{width}, {depth}"
            )
        made = eqx.nn.MLP(inputs, outputs, width, depth, jnp.tanh, dtype=dtype, key=key)
        last = made.layers[-1]
        silent = eqx.tree_at(lambda m: (m.layers[-1].weight, m.layers[-1].bias), made, _zeros(last.weight, last.bias))
        origin, _ = ravel_pytree(eqx.filter(silent, eqx.is_array))
        return cls(origin, inputs, outputs, width, depth, jnp.zeros_like(origin))

    def perceptron(self) -> eqx.nn.MLP:
        """The network as Equinox has it, before the bound."""
        shapes = eqx.filter_eval_shape(_mlp, self.inputs, self.outputs, self.width, self.depth)
        leaves, tree = jax.tree.flatten(shapes)
        flat, start, filled = self.origin + self.weights, 0, []
        for leaf in leaves:
            if not isinstance(leaf, jax.ShapeDtypeStruct):
                filled.append(leaf)
                continue
            filled.append(flat[start : start + leaf.size].reshape(leaf.shape))
            start += leaf.size
        return jax.tree.unflatten(tree, filled)

    def __call__(self, x: Float[Array, "*batch input"]) -> Float[Array, "*batch output"]:
        """c(x), each output in (-1, 1)."""
        evaluate: Any = self.perceptron()
        for _ in x.shape[:-1]:
            evaluate = jax.vmap(evaluate)
        return jnp.tanh(evaluate(x))


def weight_penalty(network: Network, spread: ScalarLike = 0.3) -> Float[Array, ""]:
    """What saying something costs: minus the log density of a normal prior of that `spread` on the weights.

    $$ \\tfrac12 \\sum_k (w_k / s)^2 $$

    Add it to a negative log-likelihood, or give `closure.network.weights` the prior Normal(0, s): it is the same.
    **Good values:** s .1-.5; the smaller, the nearer the hybrid stays to its mechanism.
    """
    return 0.5 * jnp.sum((network.weights / spread) ** 2)


def _mlp(inputs: int, outputs: int, width: int, depth: int) -> eqx.nn.MLP:
    return eqx.nn.MLP(inputs, outputs, width, depth, jnp.tanh, key=jax.random.key(0))


def _size(inputs: int, outputs: int, width: int, depth: int) -> int:
    return (inputs + 1) * width + (depth - 1) * (width + 1) * width + (width + 1) * outputs


def _zeros(*arrays: Any) -> tuple[Array, ...]:
    return tuple(jnp.zeros_like(a) for a in arrays)
