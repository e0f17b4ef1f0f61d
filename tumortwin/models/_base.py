"""What a model is: a tuple of physical processes on a tissue, and a state to start from."""

import abc

import equinox as eqx
from jaxtyping import Array, Float

from tumortwin.geometry import Tissue
from tumortwin.treatments import Schedule


class TumorState(eqx.Module):
    """Tumor cell density `density`, as a volume fraction in [0, 1] of the carrying capacity; a trajectory stacks times
    in front."""

    density: Float[Array, "*time x y z"]


class Context(eqx.Module):
    """What a mechanism may look at beside the state: the tissue and what is given."""

    tissue: Tissue
    schedule: Schedule


class AbstractMechanism(eqx.Module):
    """One physical process. `rate_of_change` is its contribution to d(density)/dt [1/day], jumps left out."""

    stiff: eqx.AbstractClassVar[bool]
    reference: eqx.AbstractClassVar[str]

    @abc.abstractmethod
    def rate_of_change(self, t: Float[Array, ""], state: TumorState, context: Context) -> Float[Array, "x y z"]:
        """Contribution to the time derivative of the density [1/day]."""


class AbstractInitialCondition(eqx.Module):
    """The state at the first visit (day 0)."""

    @abc.abstractmethod
    def state(self, tissue: Tissue) -> TumorState:
        """The state on the tissue's grid, zero outside its mask."""


class AbstractModel(eqx.Module):
    """Mechanisms by name, a tissue and an initial condition. Parameters are addressed by path."""

    mechanisms: eqx.AbstractVar[dict[str, AbstractMechanism]]
    tissue: eqx.AbstractVar[Tissue]
    initial: eqx.AbstractVar[AbstractInitialCondition]
