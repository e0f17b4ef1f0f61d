"""Every compartment model once more, in NumPy: its right-hand side, its jump, and a piecewise SciPy solution."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

import tumortwin.models

m: Any = tumortwin.models  # any number will do for a parameter


@dataclasses.dataclass
class Case:
    """A model, d(variables)/dt under an exposure, the variables after a dose, and treatments that matter to it."""

    model: Any
    slope: Callable[[np.ndarray, float], Any]
    jump: Callable[[np.ndarray, float], Any]
    exposures: Sequence[float] = (0.0, 0.05, 0.9)
    dose: float = 0.4
    days: float = 20.0
    method: str = "DOP853"
    negligible: float = 0.0


def shrink(y: np.ndarray, dose: float) -> np.ndarray:
    return y * np.exp(-dose)


def fraction(y: np.ndarray, dose: float) -> np.ndarray:
    return y * np.exp(-0.06 * dose * (1.0 + dose / 8.0))


def persister() -> Any:
    return lambda y, u: [
        0.001 * y[0] - (0.9 + 0.5) * u * y[0] + 0.1 * y[2],
        0.9 * u * y[0] - 0.006 * y[1],
        0.5 * u * y[0] - 0.09 * u * y[2] - 0.1 * y[2],
        0.0055 * y[3] + 0.09 * u * y[2],
    ]


def persister_jump(y: np.ndarray, dose: float) -> list:
    h = dose / 8.318
    lost, turned = y[0] * (1 - np.exp(-1.4 * h)), y[2] * (1 - np.exp(-0.09 * h))
    return [y[0] - lost, y[1] + lost * 0.9 / 1.4, y[2] - turned + lost * 0.5 / 1.4, y[3] + turned]


def leukemia(y: np.ndarray, u: float) -> list:
    c1, c2, depot, first, second, factor, dividing, transit, white, marrow, blood = y
    kill, excess = 7.94 * np.log(1 + c1), factor / 24.4
    k = 1 / (1 + 0.01 * (white + blood))
    on, off = 0.236 * excess**0.651, 0.236 * excess**0.234
    return [
        u / 30.0 - (67.0 + 28.7) * c1 + 12.4 * c2,
        28.7 * c1 - 12.4 * c2,
        -3.15 * depot,
        3.15 * depot - 10.5 * first,
        10.5 * (first - second),
        (14.208 + 135.36 * 4.67) * 24.4 + 10.5 * second - (14.208 + 135.36 * (white + blood)) * factor,
        -off * dividing + on * (1 - kill) * dividing,
        off * (dividing - transit),
        off * transit - 2.3765 * white,
        (2 * 0.875 * k - 1) * 0.1 * marrow - 0.1 * kill * marrow,
        2 * (1 - 0.875 * k) * 0.1 * marrow - 2.3 * blood,
    ]


def law(model: Any, growth: Callable[[float], float], **kwargs: Any) -> Case:
    return Case(model, lambda y, u: [growth(y[0]) - u * y[0]], shrink, **kwargs)


FLOWS = {
    "exponential": law(m.Exponential(0.118, 2.0), lambda v: 0.118 * v),
    "exponential-linear": law(m.ExponentialLinear(0.3, 30.0, 5.0), lambda v: min(0.3 * v, 30.0)),
    "exponential-linear, large": law(m.ExponentialLinear(0.3, 30.0, 900.0), lambda v: min(0.3 * v, 30.0)),
    "power law": law(m.PowerLaw(0.9, 0.8), lambda v: 0.9 * v**0.8),
    "power law, exponent 1": law(m.PowerLaw(0.3, 1.0), lambda v: 0.3 * v),
    "power law, exponent near 1": law(m.PowerLaw(0.3, 0.9995), lambda v: 0.3 * v**0.9995),
    "logistic": law(m.Logistic(0.3, 2000.0), lambda v: 0.3 * v * (1 - v / 2000.0), exposures=(0.0, 0.3, 0.9)),
    "gompertz": law(m.Gompertz(0.747, 0.0815), lambda v: v * (0.747 - 0.0815 * np.log(v))),
    "gompertz, above capacity": law(
        m.Gompertz(0.1, 0.5, 90.0, 2.0), lambda v: v * (0.1 - 0.5 * np.log(v / 2.0)), exposures=(0.0, 0.1)
    ),
    "gompertz, no deceleration": law(m.Gompertz(0.2, 0.0), lambda v: 0.2 * v),
    "gompertz, little deceleration": law(m.Gompertz(0.2, 3e-4), lambda v: v * (0.2 - 3e-4 * np.log(v))),
    "reduced gompertz": law(m.ReducedGompertz(0.08, 9.2, 0.01), lambda v: v * (9.2 * 0.08 + 0.01 - 0.08 * np.log(v))),
    "bertalanffy": law(m.Bertalanffy(3.0, 0.25), lambda v: 3.0 * v ** (2 / 3) - 0.25 * v),
    "general bertalanffy": law(m.GeneralBertalanffy(1.1, 0.85, 0.4), lambda v: 1.1 * v**0.85 - 0.4 * v),
    "general bertalanffy, exponent 1": law(m.GeneralBertalanffy(0.5, 1.0, 0.4), lambda v: 0.1 * v),
    "treated": Case(
        m.Treated(m.Gompertz(0.747, 0.0815), 0.3, 0.06, 8.0),
        lambda y, u: [y[0] * (0.747 - 0.3 * u - 0.0815 * np.log(y[0]))],
        fraction,
        dose=2.0,
    ),
    "stein": Case(
        m.Stein(0.02, 0.004, 7.0),
        lambda y, u: [-(0.02 + u) * y[0], (0.004 - u) * y[1], -u * y[2]],
        shrink,
        days=200.0,
        exposures=(0.0, 0.01),
    ),
    "claret": Case(
        m.Claret(0.003, 0.01, 0.007, 60.0),
        lambda y, u: [(0.003 - 0.01 * u * y[1]) * y[0], -0.007 * y[1]],
        lambda y, dose: [y[0] * np.exp(-dose), y[1]],
        days=200.0,
        exposures=(0.0, 1.0, 2.5),
    ),
    "independent clones": Case(
        m.IndependentClones(0.01, 0.04, 0.002, 0.02, 12.0),
        lambda y, u: [(0.01 - 0.04 * u) * y[0], 0.002 * y[1]],
        lambda y, dose: [y[0] * np.exp(-dose), y[1]],
        days=200.0,
        exposures=(0.0, 1.0),
    ),
    "persister": Case(
        m.Persister(0.001, 0.0055, 0.006, 0.9, 0.5, 0.09, 40.0), persister(), persister_jump, dose=1.0, days=300.0
    ),
    "stem source": Case(
        m.StemSource(12.0, 0.02, 8e-4, 0.003, 0.06, 0.5),
        lambda y, u: [8e-4 * y[0], (1 - u + 0.5 * u) * y[0] + (0.003 * (1 - u) - 0.06 * u) * y[1]],
        lambda y, dose: [y[0], y[1] * np.exp(-dose)],
        days=400.0,
        exposures=(0.0, 0.4, 1.0),
    ),
    "stem source, equal rates": Case(
        m.StemSource(12.0, 0.02, 0.003, 0.003, 0.06, 0.5),
        lambda y, u: [0.003 * y[0], (1 - u + 0.5 * u) * y[0] + (0.003 * (1 - u) - 0.06 * u) * y[1]],
        lambda y, dose: [y[0], y[1] * np.exp(-dose)],
        days=400.0,
        exposures=(0.0, 1.0),
    ),
}

_R = np.array([0.025, 0.01, 0.02])
_K = np.array([900.0, 800.0, 700.0])
_A = np.array([[1.0, 0.4, 0.8], [0.1, 1.0, 0.6], [0.2, 0.9, 1.0]])
_E = np.array([0.9, 0.4, 0.0])


def network(inputs: int, outputs: int, seed: int) -> Any:
    """A network that says something, the same for everybody."""
    empty = m.Network.create(inputs, outputs, 5, 2, key=jax.random.key(seed))
    return eqx.tree_at(lambda n: n.weights, empty, 0.4 * jnp.cos(jnp.arange(empty.weights.size, dtype=float)))


def said(network: Any, x: np.ndarray) -> np.ndarray:
    """The bounded network once more, for inputs in the last axis."""
    flat, start = np.asarray(network.origin + network.weights), 0
    sizes = [network.inputs, *[network.width] * network.depth, network.outputs]
    for k, (before, after) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        matrix = flat[start : start + before * after].reshape(after, before)
        start += before * after
        x = x @ matrix.T + flat[start : start + after]
        start += after
        x = np.tanh(x) if k < network.depth else x
    return np.tanh(x)


def scaled(y: Any, lower: Any, upper: Any) -> np.ndarray:
    y, lower, upper = (np.asarray(a) for a in (y, lower, upper))
    return 2 * np.log((y + lower) / (2 * lower)) / np.log((upper + lower) / (2 * lower)) - 1


CLOCK, BOTH = network(2, 1, 1), network(3, 2, 2)


def clocked(y: np.ndarray, u: float) -> list:
    x = np.append(scaled(y, [20.0], [2000.0]), 2 * u / 0.5 - 1)
    return [(0.3 * y[0] * (1 - y[0] / 2000.0) - u * y[0]) * (1 + 0.8 * said(CLOCK, x)[0])]


def predated(y: np.ndarray, u: float) -> np.ndarray:
    x = np.append(scaled(y, [0.1, 0.05], [5.0, 2.0]), 2 * u / 1.5 - 1)
    slope = [1.1 * y[0] * (1 - y[0] / 5.3) - 1.3 * y[0] * y[1] - 0.3 * u * y[0], (0.2 * y[0] - 0.1 - 0.2 * u) * y[1]]
    return np.asarray(slope) + 0.3 * said(BOTH, x) * y


RATES = {
    "hybrid flow": Case(
        m.HybridFlow(m.Logistic(0.3, 2000.0, 40.0), m.RelativeClosure(CLOCK, m.InputRange.of([20.0], [2e3], 0.5), 0.8)),
        clocked,
        shrink,
        exposures=(0.0, 0.4),
    ),
    "hybrid rates": Case(
        m.HybridRates(
            m.Carrgo(1.1, 5.3, 1.3, 0.2, 0.1, 1.0, 0.25, 0.3, 0.2),
            m.PerCapitaClosure(BOTH, m.InputRange.of([0.1, 0.05], [5.0, 2.0], 1.5), 0.3),
        ),
        predated,
        lambda y, dose: [y[0], y[1] + dose],
        exposures=(0.0, 1.5),
    ),
    "dynamic capacity": Case(
        m.DynamicCarryingCapacity(0.4, 2.6, 0.1),
        lambda y, u: [(0.4 * np.log(y[1] / y[0]) - u) * y[0], 2.6 * y[0] ** (2 / 3)],
        lambda y, dose: [y[0], y[1] * 0.9**dose],
        dose=2.0,
        exposures=(0.0, 0.2),
    ),
    "sensitive and resistant": Case(
        m.SensitiveResistant(9000.0, 10.0),
        lambda y, u: [
            0.0208 * y[0] * (1 - (y[0] + y[1]) / (1e4 * (1 - 0.95 * u))),
            0.0121333 * y[1] * (1 - (6 * y[0] + y[1]) / 1e4),
        ],
        shrink,
        days=900.0,
        exposures=(0.0, 1.0),
    ),
    "turnover": Case(
        m.TurnoverCompetition(0.4, 1e-3, 0.027, 0.02, 0.008, 0.006, 1.5, 0.9),
        lambda y, u: [
            (0.027 * (1 - y.sum() / 0.9) * (1 - 1.5 * u) - 0.008) * y[0],
            (0.02 * (1 - y.sum() / 0.9) - 0.006) * y[1],
        ],
        shrink,
        days=900.0,
        exposures=(0.0, 1.0),
    ),
    "leukemia": Case(
        m.LeukemiaMyelosuppression(),
        leukemia,
        lambda y, dose: [*y[:2], y[2] + 1000.0 * dose / 14.5, *y[3:]],
        dose=100.0,
        days=14.0,
        exposures=(0.0, 300.0),
        method="Radau",
        negligible=1e-7,
    ),
    "three populations": Case(
        m.LotkaVolterra([5.0, 40.0, 1e-3], _R, _K, _A, _E, [1.0, 1.0, 0.5]),
        lambda y, u: _R * y * (1 - _A @ y / (_K * (1 - _E * u))),
        shrink,
        days=600.0,
        exposures=(0.0, 1.0),
    ),
    "stem cells": Case(
        m.StemDifferentiatedPsa(0.03, 20.0, 3000.0, 9.0),
        lambda y, u: [
            0.03 * y[0] ** 2 / (y[0] + y[1]) * 0.693147,
            (1 - 0.03 * y[0] / (y[0] + y[1])) * 0.693147 * y[0] - 0.07 * u * y[1],
            1e-4 * y[1] - 0.01 * y[2],
        ],
        lambda y, dose: [y[0] * np.exp(-dose), y[1] * np.exp(-dose), y[2]],
        days=400.0,
        exposures=(0.0, 1.0),
    ),
    "irradiated dish": Case(
        m.RadiotherapyAllee(1.89, 0.98, 0.3, 0.3, 0.06, 8.0, 0.4, 0.7),
        lambda y, u: [
            (1.89 * y.sum() / (y.sum() + 0.3) * (1 - y.sum() / 0.98) - u) * y[0],
            -0.4 * y[1],
            0.4 * y[1] - 0.7 * y[2],
        ],
        lambda y, dose: [fraction(y[0], dose), y[1] + y[0] - fraction(y[0], dose), y[2]],
        dose=5.0,
        days=14.0,
        exposures=(0.0, 0.1),
    ),
    "delayed death": Case(
        m.DelayedDeath(0.1, 1.4, 0.3, 0.9, 0.06, 3.0, 0.4, 8.0),
        lambda y, u: [
            (0.3 * (1 - y.sum() / 0.9) - u) * y[0],
            (1.4 * (1 - y.sum() / 0.9) - 3.0) * y[1],
            (1.4 * (1 - y.sum() / 0.9) - 3.0) * y[2] + 3.0 * y[1],
            (1.4 * (1 - y.sum() / 0.9) - 3.0) * y[3] + 3.0 * y[2],
            3.0 * y[3] - 0.4 * y[4],
        ],
        lambda y, dose: [fraction(y[0], dose), y[1] + y[0] - fraction(y[0], dose), y[2], y[3], y[4]],
        dose=5.0,
        days=14.0,
        exposures=(0.0, 0.1),
    ),
    "car t": Case(
        m.Carrgo(1.1, 5.3, 1.3, 0.2, 0.1, 1.0, 0.25, 0.3, 0.2),
        lambda y, u: [
            1.1 * y[0] * (1 - y[0] / 5.3) - 1.3 * y[0] * y[1] - 0.3 * u * y[0],
            0.2 * y[0] * y[1] - 0.1 * y[1] - 0.2 * u * y[1],
        ],
        lambda y, dose: [y[0], y[1] + dose],
        exposures=(0.0, 1.5),
    ),
    "immune": Case(
        m.Kuznetsov(1.5e6, 8e6),
        lambda y, u: [
            1.3e4 + 0.1245 * y[0] * y[1] / (2.019e7 + y[1]) - 3.422e-10 * y[0] * y[1] - 0.0412 * y[0],
            0.18 * y[1] * (1 - y[1] / 5e8) - 1.101e-7 * y[0] * y[1] - u * y[1],
        ],
        lambda y, dose: [y[0], y[1] * np.exp(-dose)],
        days=100.0,
    ),
}


def variables(state: Any) -> np.ndarray:
    """The variables of a state in the last axis, those of `LotkaVolterra` as they are."""
    if isinstance(state, m.PopulationsState):
        return np.asarray(state.cells)
    return np.stack([np.asarray(getattr(state, name)) for name in type(state).__dataclass_fields__], axis=-1)


def integrate(case: Case, y: Any, duration: float, exposure: float) -> np.ndarray:
    """SciPy's stiff solver with tolerances at the edge of double precision."""
    if duration == 0.0:
        return np.asarray(y, float)
    slope = lambda t, y: case.slope(y, exposure)  # noqa: E731
    found = solve_ivp(slope, (0.0, duration), y, case.method, rtol=1e-12, atol=1e-14 * np.max(np.abs(y)))
    assert found.success
    return found.y[:, -1]


def piecewise(case: Case, y: Any, ts: Any, edges: Any, levels: Any, times: Any, doses: Any) -> np.ndarray:
    """The variables on the days `ts`, by walking from one day to the next."""
    out, now = {}, 0.0
    y = np.asarray(y, float)
    for day in sorted({*ts, *[e for e in edges if e > 0], *[t for t in times if t >= 0]}):
        y = integrate(case, y, day - now, levels[np.searchsorted(edges, 0.5 * (now + day))])
        now, out[day] = day, y
        for time, dose in zip(times, doses, strict=True):
            if time == day:
                y = np.asarray(case.jump(y, dose), float)
    return np.stack([out[t] for t in ts])
