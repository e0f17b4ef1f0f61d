"""The reaction-diffusion tumor: invasion, growth and treatment on a masked anatomy."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin._types import ScalarLike
from tumortwin.geometry import Faces, Tissue, add_ring, divergence, face_conductances
from tumortwin.models._base import AbstractInitialCondition, AbstractMechanism, AbstractModel
from tumortwin.models.hybrid import NeuralProliferation
from tumortwin.models.mechanisms import (
    AbstractProliferation,
    Diffusion,
    DrugResponse,
    LogisticProliferation,
    PatternedProliferation,
    RadiotherapyResponse,
)
from tumortwin.treatments import LogKill, Schedule


def _face_rates(rate: Array) -> tuple[Array, Array, Array]:
    """The growth rate at the faces of a ringed grid along each axis: a scalar, or the mean of the two voxels."""
    if rate.ndim == 0:
        return rate, rate, rate
    ringed = add_ring(rate)
    x, y, z = (0.5 * (ringed + jnp.roll(ringed, -1, axis)) for axis in range(3))
    return x, y, z


# Mean over all directions n of sum_a n_a^4: by so much less than along an axis does the lattice speed fronts up.
DIRECTION_MEAN = 0.6


def _lattice_factor(face: Float[Array, "x y z"], ratio: Array) -> Float[Array, "x y z"]:
    """a / sinh a with a^2 = 3/5 ratio / (4 face); 0 where there is no face."""
    inside = face > 0
    square = 0.25 * DIRECTION_MEAN * ratio / jnp.where(inside, face, 1.0)
    # By its series near a = 0 (no growth), and without overflow where a face is all but closed.
    small = square < 1e-2
    half = jnp.sqrt(jnp.where(small, 1.0, square))
    exact = 2.0 * half * jnp.exp(-half) / -jnp.expm1(-2.0 * half)
    return jnp.where(inside, jnp.where(small, 1.0 - square / 6.0 + 7.0 * square**2 / 360.0, exact), 0.0)


_KNOWN = (
    Diffusion,
    LogisticProliferation,
    PatternedProliferation,
    NeuralProliferation,
    RadiotherapyResponse,
    DrugResponse,
)


class ReactionDiffusion(AbstractModel):
    """Fisher-Kolmogorov growth under radiotherapy, chemotherapy and surgery.

    $$ \\partial_t u = \\nabla\\cdot(D\\nabla u) + \\rho u (1 - u) - \\sum_m s_m C_m(t)\\,u,\\qquad
       u(t_i^+) = u(t_i^-)\\,e^{-\\alpha d_i - \\beta d_i^2} $$

    with zero flux through the edge of the domain. `mechanisms` holds exactly one `Diffusion` (name `diffusion`), one
    `LogisticProliferation` or `PatternedProliferation`, or a `NeuralProliferation` about one of them
    (`proliferation`), at most one `RadiotherapyResponse` and any number of `DrugResponse`s, one a drug.

    `front_correction`: on a grid that is coarse for the front, h > sqrt(D/rho) / 2, the lattice makes fronts too fast.
    With it every face's conductance is multiplied by

    $$ \\varphi = \\frac{a}{\\sinh a}, \\qquad a = \\sqrt{\\tfrac35}\\, \\frac h2 \\sqrt{\\rho / D_f} . $$

    Along an axis, (a / sinh a)^2 with a = h/2 sqrt(rho/D) would let the mode exp(-r sqrt(rho/D)) of the least-speed
    front grow on the lattice as in the continuum, which makes fronts too slow by about as much as none makes them too
    fast: the geometric mean is taken. In other directions n the lattice errs less, by sum n_a^4 to leading order, whose
    mean over the sphere is 3/5. On voxels of 2 (4) sqrt(D/rho) the speed is off by 4 % (11 %) along an axis, .4 % (.5
    %) along a face diagonal, -1 % (-4 %) along a space diagonal; `tumortwin reproduce verification` measures it.
    The order of the scheme stays two (phi = 1 - a^2/6 + ...). With a field rho(x) a face takes the mean of its voxels.

    **Limits:** one density, no necrosis, no mass effect (for convenience).

    **Reference:** Rockne et al., J. Math. Biol. 58 (2009) 561-578, doi:10.1007/s00285-008-0219-6.
    """

    mechanisms: dict[str, AbstractMechanism]
    tissue: Tissue
    initial: AbstractInitialCondition
    front_correction: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        wanted = {"diffusion": Diffusion, "proliferation": AbstractProliferation}
        for name, kind in wanted.items():
            if not isinstance(self.mechanisms.get(name), kind):
                raise ValueError(
                    f"required: mechanism {name!r} of type {kind.__name__}; "
                    f"received: {type(self.mechanisms.get(name)).__name__}"
                )
        kinds = [type(mechanism) for mechanism in self.mechanisms.values()]
        unknown = sorted({kind.__name__ for kind in kinds if kind not in _KNOWN})
        if unknown:
            known = ", ".join(kind.__name__ for kind in _KNOWN)
            raise ValueError(
                f"required: mechanisms this model can solve ({known}); received: {', '.join(unknown)}; nothing that is "
                "given is ignored"
            )
        drugs = [m.drug for m in self.mechanisms.values() if isinstance(m, DrugResponse)]
        growth = sum(issubclass(kind, AbstractProliferation) for kind in kinds)
        twice = ["proliferation"] if growth > 1 else []
        twice += [kind.__name__ for kind in (Diffusion, RadiotherapyResponse) if kinds.count(kind) > 1]
        twice += [f"DrugResponse to {drug!r}" for drug in sorted({d for d in drugs if drugs.count(d) > 1})]
        if twice:
            raise ValueError(f"required: at most one mechanism of a kind; received: more than one {', '.join(twice)}")

    @property
    def diffusion(self) -> Diffusion:
        """The invasion mechanism."""
        mechanism = self.mechanisms["diffusion"]
        assert isinstance(mechanism, Diffusion)
        return mechanism

    @property
    def proliferation(self) -> AbstractProliferation:
        """The growth mechanism."""
        mechanism = self.mechanisms["proliferation"]
        assert isinstance(mechanism, AbstractProliferation)
        return mechanism

    def relative_faces(self) -> Faces:
        """Face conductances at D_w = 1 mm^2/day [1/day], with the front correction when it is on."""
        faces = face_conductances(self.diffusion.relative_diffusivity(self.tissue), self.tissue.domain)
        if not self.front_correction:
            return faces
        dtype = faces.x.dtype
        # x^2 = h^2 rho / D_f with D_f = D_w h^2 f: the voxel edge cancels.
        rates = _face_rates((self.proliferation.local_rate() / self.diffusion.white_matter).astype(dtype))
        return Faces(*(face * _lattice_factor(face, ratio) for face, ratio in zip(faces, rates, strict=True)))

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
        rate = self.proliferation.local_rate().astype(density.dtype)
        inner = density[1:-1, 1:-1, 1:-1]
        if isinstance(self.proliferation, NeuralProliferation):
            rate = rate * self.proliferation.factor(inner, self.proliferation.places(self.tissue))
        return jnp.pad(divergence(density, faces) + rate * inner * (1.0 - inner), 1)
