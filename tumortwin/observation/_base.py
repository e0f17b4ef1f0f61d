"""What every observation promises: from the state of the tumor to what a scanner or an assay would show."""

import abc

import equinox as eqx
from jaxtyping import Array, Inexact, Int
from numpyro.distributions import Distribution

Shaped = Inexact[Array, "..."]


class AbstractObservation(eqx.Module):
    """State -> prediction -> noise.

    $$ \\eta = \\mathrm{predict}(u), \\qquad y \\sim \\mathrm{noise}(\\eta), \\qquad
       -\\log p(y \\mid \\eta) = \\tfrac12 r(\\eta, y)^2 + \\log s(\\eta) + c(y) $$

    with `r` the signed deviance residual and `s` the scale of the noise (`log_scale`; zero where the noise has no free
    scale). Least squares on `r`, together with `log s`, is therefore maximum likelihood: no approximation is made.

    The methods are elementwise but for `predict`. Parameters are array fields with units, so that a prior may
    address them as `observation.<channel>.<field>`.
    """

    @abc.abstractmethod
    def at_visit(self, visit: Int[Array, ""] | int | None) -> "AbstractObservation":
        """The observation as of one visit (its place among the channel's visits), or with `None` as of none of them.

        What varies from visit to visit is a vector [visit]; of it one entry is taken, or its prior mean.
        """

    @abc.abstractmethod
    def predict(self, density: Shaped) -> Shaped:
        """The prediction `eta` for one visit; `density` is the volume fraction in [0,1], shape `x y z`."""

    @abc.abstractmethod
    def noise(self, prediction: Shaped) -> Distribution:
        """The distribution of the datum given the prediction (elementwise, no event dimensions)."""

    @abc.abstractmethod
    def residual(self, prediction: Shaped, values: Shaped) -> Shaped:
        """The signed deviance residual `r`: zero at the saturated fit, positive when the datum exceeds it."""

    @abc.abstractmethod
    def information(self, prediction: Shaped) -> Shaped:
        """Fisher information of one element about its prediction, at a given scale of the noise.

        All of `E[(d log p / d eta)^2]` where the scale does not change with the prediction; where it does, the rest is
        `2 (d log s / d eta)^2`, which `linearize` takes from `log_scale`.
        """

    @abc.abstractmethod
    def log_scale(self, prediction: Shaped) -> Shaped:
        """Log of the noise scale `s`, the part of `-log p` that the residual does not hold: of every element, or a
        scalar zero where there is no free scale."""
