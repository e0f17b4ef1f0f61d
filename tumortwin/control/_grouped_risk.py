"""One risk for many patients under a common plan: the mean of each patient's own risk."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin.control._risk import AbstractRisk, normalized_weights


class GroupedRisk(AbstractRisk):
    """The mean over groups of the risk within a group: `groups` patients, each with as many draws, one after another.

    $$ R(Z) = \\frac{1}{G} \\sum_g R_g(Z_{g,1}, \\dots, Z_{g,m}) $$

    The plan that minimises it is the best one common to all patients, against which a personal plan is to be judged:
    personal plans, each with the smallest R_g, are never worse on the draws that both were chosen with. It is not the
    risk of the pooled draws, whose tail would be made of the worst patients.

    **Arguments:** `risk` of one patient; `groups`. Weights are normalized within a group.

    **Raises:** `ValueError` where the draws do not fall into equal groups.
    """

    risk: AbstractRisk
    groups: int = eqx.field(static=True)

    name: ClassVar[str] = "mean_over_groups"

    def __call__(self, values: Float[Array, " draw"], weights: Float[Array, " draw"] | None = None) -> Float[Array, ""]:
        if values.shape[0] % self.groups:
            raise ValueError(f"required: draws in {self.groups} equal groups; received: {values.shape[0]} draws")
        grouped = values.reshape(self.groups, -1)
        if weights is None:
            return jnp.mean(jax.vmap(self.risk)(grouped))
        own = jax.vmap(normalized_weights)(grouped, jnp.asarray(weights).reshape(grouped.shape))
        return jnp.mean(jax.vmap(self.risk)(grouped, own))

    def describe(self) -> dict[str, float | str]:
        own = {f"group_{key}": value for key, value in self.risk.describe().items()}
        return {"measure": self.name, "groups": float(self.groups), **own}
