"""The model: which tissue, which parameter, which agent; and where it starts."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from tumortwin.geometry import Domain, Grid, Tissue
from tumortwin.models import (
    AbstractMechanism,
    Context,
    ContourProfile,
    Diffusion,
    DrugResponse,
    GaussianSeed,
    GivenDensity,
    LogisticProliferation,
    RadiotherapyResponse,
    ReactionDiffusion,
    TumorState,
)
from tumortwin.models._wave import wave_logit, wave_place
from tumortwin.params import get_parameter, parameter_units, set_parameters
from tumortwin.treatments import Course, Schedule


def _value(x: Any) -> Any:
    """A plain number where the type says array: the field converts it."""
    return x


SHAPE = (6, 5, 4)
GRID = Grid.from_spacing(SHAPE, (1.0, 2.0, 3.0))
MASK = np.ones(SHAPE, bool)
MASK[0] = False
WHITE = np.zeros(SHAPE)
WHITE[:3] = 1.0
TISSUE = Tissue(Domain(GRID, MASK), {"white_matter": WHITE, "gray_matter": 1.0 - WHITE})
DENSITY = GivenDensity(_value(np.full(SHAPE, 0.25)))


def _model(**more):
    base = {"diffusion": Diffusion(_value(0.3), _value(0.1)), "proliferation": LogisticProliferation(_value(0.05))}
    return ReactionDiffusion({**base, **more}, TISSUE, DENSITY)


def test_white_matter_is_fast_and_gray_matter_slow():
    relative = np.asarray(_model().diffusion.relative_diffusivity(TISSUE))
    assert np.all(relative[1:3] == 1.0) and np.allclose(relative[3:], 0.1) and np.all(relative[0] == 0.0)


def test_without_gray_matter_in_the_tissue_all_is_white():
    tissue = Tissue(TISSUE.domain, {"white_matter": np.ones(SHAPE)})
    assert np.all(np.asarray(Diffusion(_value(0.3), _value(0.1)).relative_diffusivity(tissue))[1:] == 1.0)


def test_parameters_are_addressed_by_path_and_not_swapped():
    model = set_parameters(
        _model(radiotherapy=RadiotherapyResponse(_value(0.04))),
        {"mechanisms.diffusion.white_matter": 0.7, "mechanisms.proliferation.rate": 0.02},
    )
    assert float(model.diffusion.white_matter) == 0.7 and float(model.proliferation.rate) == 0.02
    units = parameter_units(model)
    assert units["mechanisms.diffusion.white_matter"] == "mm^2/day"
    assert units["mechanisms.proliferation.rate"] == "1/day"
    assert units["mechanisms.radiotherapy.alpha"] == "1/Gy" and units["mechanisms.radiotherapy.alpha_beta"] == "Gy"
    with pytest.raises(KeyError, match="mechanisms.proliferation.rate"):
        get_parameter(model, "mechanisms.proliferation.rat")


def test_parameters_are_strong_floating_arrays():
    assert LogisticProliferation(_value(1)).rate.dtype == jnp.float64
    assert not LogisticProliferation(_value(0.05)).rate.weak_type
    assert GivenDensity(_value(np.ones(SHAPE, np.float32))).density.dtype == jnp.float32


def test_every_mechanism_states_its_rate():
    state = DENSITY.state(TISSUE)
    schedule = Schedule(drugs={"temozolomide": Course(jnp.asarray([0.0, 2.0]), jnp.asarray([1.0, 2.0]))})
    context = Context(TISSUE, schedule)
    growth = LogisticProliferation(_value(0.08)).rate_of_change(jnp.asarray(0.0), state, context)
    np.testing.assert_allclose(np.asarray(growth)[MASK], 0.08 * 0.25 * 0.75)
    flat = Diffusion(_value(0.3)).rate_of_change(jnp.asarray(0.0), state, context)
    np.testing.assert_allclose(np.asarray(flat), 0.0, atol=1e-15)
    kill = DrugResponse(_value(0.5), _value(1.0)).rate_of_change(jnp.asarray(3.0), state, context)
    np.testing.assert_allclose(np.asarray(kill)[MASK], -0.5 * (np.exp(-3.0) + 2 * np.exp(-1.0)) * 0.25)
    before = DrugResponse(_value(0.5), _value(1.0)).rate_of_change(jnp.asarray(-1.0), state, context)
    assert np.all(np.asarray(before) == 0.0)
    jump = RadiotherapyResponse(_value(0.05)).rate_of_change(jnp.asarray(0.0), state, context)
    assert np.all(np.asarray(jump) == 0.0)


def test_an_agent_without_a_response_is_refused():
    fractions = Schedule(Course(jnp.asarray([1.0]), jnp.asarray([2.0])))
    with pytest.raises(ValueError, match="RadiotherapyResponse"):
        _model().log_kill(fractions, 0.0, 10.0)
    drug = Schedule(drugs={"lomustine": Course(jnp.asarray([1.0]), jnp.asarray([2.0]))})
    with pytest.raises(ValueError, match="lomustine.*temozolomide"):
        _model(chemotherapy=DrugResponse(_value(0.5))).log_kill(drug, 0.0, 10.0)


def test_a_model_needs_its_two_processes():
    with pytest.raises(ValueError, match="proliferation"):
        ReactionDiffusion({"diffusion": Diffusion(_value(0.3))}, TISSUE, DENSITY)
    with pytest.raises(ValueError, match="diffusion"):
        ReactionDiffusion({"diffusion": LogisticProliferation(_value(0.1))}, TISSUE, DENSITY)


class _Necrosis(AbstractMechanism):
    stiff: ClassVar[bool] = False
    reference: ClassVar[str] = ""

    def rate_of_change(self, t, state, context):
        return -state.density


@pytest.mark.parametrize(
    "extra, word",
    [
        ({"necrosis": _Necrosis()}, "_Necrosis"),
        (
            {"boost": RadiotherapyResponse(_value(0.1)), "other": RadiotherapyResponse(_value(0.1))},
            "more than one RadiotherapyResponse",
        ),
        (
            {"one": DrugResponse(_value(0.5)), "two": DrugResponse(_value(0.1))},
            "more than one DrugResponse to 'temozolomide'",
        ),
    ],
)
def test_no_mechanism_is_ignored_in_silence(extra, word):
    with pytest.raises(ValueError, match=word):
        _model(**extra)


def test_every_start_is_zero_outside_the_domain_and_a_seed_is_where_it_was_put():
    seed = GaussianSeed(jnp.asarray([3.0, 2.0, 1.0]), _value(0.5), _value(2.0))
    density = np.asarray(seed.state(TISSUE).density)
    assert np.unravel_index(density.argmax(), SHAPE) == (3, 2, 1) and density.max() == 0.5
    assert np.all(density[0] == 0)
    # Distances in millimetres: one voxel along z is three along x.
    assert density[3, 2, 2] == pytest.approx(0.5 * np.exp(-9 / 8)) and density[4, 2, 1] == pytest.approx(
        0.5 * np.exp(-1 / 8)
    )


def _profile(flair, core, **more):
    def field(values):
        return jnp.asarray(np.broadcast_to(np.asarray(values, float).reshape(1, 6, 1, 1), (1, *SHAPE)))

    profile = ContourProfile(field(flair), field(core), **more)
    return np.asarray(profile.state(TISSUE).density)[:, 2, 2]


def _exact_wave():
    """Places and logits of the least-speed front, by integrating the slope s of the logit from deep inside.

    With L = logit U: L' = -s, s' = (1 - 2 U) s^2 - 2 s + 1, s = sqrt(2) - 1 where U = 1.
    """

    def slope(x, y):
        u = 1 / (1 + np.exp(-y[0]))
        return [-y[1], (1 - 2 * u) * y[1] ** 2 - 2 * y[1] + 1]

    found = solve_ivp(slope, [0, 60], [12.0, np.sqrt(2) - 1], rtol=1e-10, atol=1e-12, dense_output=True)
    x = np.linspace(0, 60, 6001)
    level = found.sol(x)[0]
    return x - np.interp(0.0, -level, x), level


def test_the_wave_is_the_front_of_least_speed():
    x, level = _exact_wave()
    seen = (level > -12) & (level < 8)
    assert np.abs(np.asarray(wave_logit(jnp.asarray(x))) - level)[seen].max() < 0.025
    wanted = jnp.linspace(-15.0, 10.0, 26)
    np.testing.assert_allclose(wave_logit(jax.jit(wave_place)(wanted)), wanted, atol=1e-9)


def test_the_profile_is_that_front_laid_through_both_contours():
    inf = np.inf
    flair, core = [9.0, 3.0, 0.0, -1.0, -2.0, -3.0], [inf, 5.0, 2.0, 1.0, 0.0, -1.0]
    given = {"flair_density": 0.2, "t1gd_density": 0.7, "diffusivity": 0.16, "rate": 0.04}  # a length is 2 mm
    given |= {"tail_ratio": 0.75, "core_ratio": 1.5}

    def at(place):
        return 1 / (1 + np.exp(-np.asarray(wave_logit(jnp.asarray(place)))))

    outer, inner = (float(wave_place(jnp.asarray(np.log(p / (1 - p))))) for p in (0.2, 0.7))
    u = _profile(flair, [99.0, *core[1:]], **given)
    assert u[2] == pytest.approx(0.2) and u[4] == pytest.approx(0.7) and u[0] == 0.0
    assert u[1] == pytest.approx(at(outer + 3.0 / 1.5))
    assert u[3] == pytest.approx(at(0.5 * (outer + inner)))  # halfway between the contours
    assert u[5] == pytest.approx(at(inner - 1.0 / 3.0))
    only_flair = _profile(flair, [inf] * 6, **given)
    assert only_flair[5] == pytest.approx(at(outer - 3.0 / 3.0))
    moved = _profile(flair, core, **given, flair_shift=0.3)
    assert np.log(moved[2] / (1 - moved[2])) == pytest.approx(np.log(0.25) - 0.3) and moved[4] == pytest.approx(0.7)
    assert np.all(_profile([inf] * 6, [inf] * 6) == 0.0)
    capped = _profile([-99.0] * 6, [-99.0] * 6, cap=0.9)
    assert np.allclose(capped[1:], 0.9)


def test_a_voxel_holds_the_mean_of_its_parts():
    distances = jnp.asarray(np.array([-1.0, 0.5, 4.0, 9.0]).reshape(4, 1, 1, 1) * np.ones(SHAPE))
    nowhere = jnp.full_like(distances, np.inf)
    whole = np.asarray(ContourProfile(distances, nowhere).state(TISSUE).density)[2, 2, 2]
    single = [
        np.asarray(ContourProfile(distances[k : k + 1], nowhere[k : k + 1]).state(TISSUE).density)[2, 2, 2]
        for k in range(4)
    ]
    assert whole == pytest.approx(np.mean(single), rel=1e-12) and min(single) < 0.1 * whole


def test_a_state_may_carry_times():
    assert TumorState(jnp.zeros((3, *SHAPE))).density.shape == (3, *SHAPE)
