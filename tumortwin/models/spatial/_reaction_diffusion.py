"""The reaction-diffusion tumor: invasion, growth and treatment on a masked anatomy."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin._types import ScalarLike
from tumortwin.geometry import Faces, Tissue, divergence, face_conductances
from tumortwin.models._base import AbstractInitialCondition, AbstractMechanism, AbstractModel
from tumortwin.models.mechanisms import Diffusion, DrugResponse, LogisticProliferation, RadiotherapyResponse
from tumortwin.treatments import LogKill, Schedule


class ReactionDiffusion(AbstractModel):
    """Fisher-Kolmogorov growth under radiotherapy, chemotherapy and surgery.

    $$ \\partial_t u = \\nabla\\cdot(D\\nabla u) + \\rho u (1 - u) - \\sum_m s_m C_m(t)\\,u,\\qquad
       u(t_i^+) = u(t_i^-)\\,e^{-\\alpha d_i - \\beta d_i^2} $$

    with zero flux through the edge of the domain. `mechanisms` holds exactly one `Diffusion` (name `diffusion`), one
    `LogisticProliferation` (`proliferation`), at most one `RadiotherapyResponse` and any number of `DrugResponse`s.

    **Limits:** one density, no necrosis, no mass effect (for convenience).

    **Reference:** Rockne et al., J. Math. Biol. 58 (2009) 561-578, doi:10.1007/s00285-008-0219-6.
    """

    mechanisms: dict[str, AbstractMechanism]
    tissue: Tissue
    initial: AbstractInitialCondition

    def __check_init__(self) -> None:
        wanted = {"diffusion": Diffusion, "proliferation": LogisticProliferation}
        for name, kind in wanted.items():
            if not isinstance(self.mechanisms.get(name), kind):
                raise ValueError(
                    f"required: mechanism {name!r} of type {kind.__name__}; "
                    f"received: {type(self.mechanisms.get(name)).__name__}"
                )

    @property
    def diffusion(self) -> Diffusion:
        """The invasion mechanism."""
        mechanism = self.mechanisms["diffusion"]
        assert isinstance(mechanism, Diffusion)
        return mechanism

    @property
    def proliferation(self) -> LogisticProliferation:
        """The growth mechanism."""
        mechanism = self.mechanisms["proliferation"]
        assert isinstance(mechanism, LogisticProliferation)
        return mechanism

    def relative_faces(self) -> Faces:
        """Face conductances at D_w = 1 mm^2/day [1/day]."""
        return face_conductances(self.diffusion.relative_diffusivity(self.tissue), self.tissue.domain)

    def log_kill(self, schedule: Schedule, t0: ScalarLike, t1: ScalarLike) -> LogKill:
        """The log-kill path of a schedule on [t0, t1] under this model's sensitivities.

        **Raises:** `ValueError` when the schedule holds an agent to which the model has no response: nothing that is
        given is ignored.
        """
        fractions = schedule.radiotherapy
        response = [m for m in self.mechanisms.values() if isinstance(m, RadiotherapyResponse)]
        if fractions.size and not response:
            raise ValueError(
                "required: a RadiotherapyResponse, as the schedule has fractions; received a model without"
            )
        kills = response[0].log_kill(fractions.doses) if response else fractions.doses
        drugs = {m.drug: m for m in self.mechanisms.values() if isinstance(m, DrugResponse)}
        times, log_kills, rates = [jnp.zeros(0)], [jnp.zeros(0)], [jnp.zeros(0)]
        for name, course in schedule.drugs.items():
            if name not in drugs:
                raise ValueError(f"required: a DrugResponse to {name!r}; received responses to: {sorted(drugs)}")
            drug = drugs[name]
            times.append(course.times)
            log_kills.append(course.doses * drug.sensitivity / drug.elimination_rate)
            rates.append(jnp.broadcast_to(drug.elimination_rate, course.times.shape))
        return LogKill(
            t0, t1, fractions.times, kills, jnp.concatenate(times), jnp.concatenate(log_kills), jnp.concatenate(rates)
        )

    def rate_of_change(
        self, t: Float[Array, ""], density: Float[Array, "x y z"], faces: Faces
    ) -> Float[Array, "x y z"]:
        """div(D grad u) + rho u (1 - u) [1/day] on ringed arrays, `faces` at the true diffusivity; for any solver."""
        del t
        rate = self.proliferation.rate.astype(density.dtype)
        inner = density[1:-1, 1:-1, 1:-1]
        return jnp.pad(divergence(density, faces) + rate * inner * (1.0 - inner), 1)
