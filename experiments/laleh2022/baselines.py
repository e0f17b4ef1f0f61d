"""Forecasts that a model has to beat: the empirical random walk, and classical growth laws fitted to each patient."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import least_squares

from tumortwin.metrics import Asked, Series

SMALLEST, FLOOR = 5.0, 2.5  # [mm]: below the first a lesion counts as vanished; its logarithm is that of the second
_SHAPES: dict[str, float | None] = {"logistic": -1.0, "gompertz": 0.0, "general_bertalanffy": None}
LAWS = ("exponential", *_SHAPES)
_RATES = (0.0, 0.2)  # [1/day]


def random_walk_forecast(known: Series, asked: Asked, *, rng: np.random.Generator, draws: int) -> np.ndarray:
    """Diameters [case, draw, mm]: the last one times an increment drawn from all known ones over as many readings.

    Log-diameters, sizes below 5 mm taken as 2.5; lesions that have vanished have a pool of their own. What ends below
    5 mm is forecast as 0, as it would be written down.
    """
    found = np.empty((asked.subject.size, draws))
    last = np.asarray([known.of(s)[1][-1] for s in asked.subject.tolist()])
    for step in np.unique(asked.step):
        pairs = [(v[:-step], v[step:]) for v in (known.of(s)[1] for s in range(len(known.counts))) if len(v) > step]
        before, after = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        change, gone = _log(after) - _log(before), before == 0.0
        for chosen, pool in ((last > 0.0, change[~gone]), (last == 0.0, change[gone])):
            cases = np.flatnonzero(chosen & (asked.step == step))
            pool = pool if pool.size else np.zeros(1)
            found[cases] = np.exp(_log(last[cases])[:, None] + rng.choice(pool, (cases.size, draws)))
    return np.where(found < SMALLEST, 0.0, found)


def _log(diameter: np.ndarray) -> np.ndarray:
    return np.log(np.where(diameter < SMALLEST, FLOOR, diameter))


def law_forecast(law: str, known: Series, asked: Asked) -> np.ndarray:
    """A growth law fitted by least squares to all known volumes of each patient [case, 1].

    Exponential $V_0 e^{g t}$, otherwise the general Bertalanffy law
    $\\dot V = \\omega V ((V_\\infty/V)^\\lambda - 1)/\\lambda$ with $\\lambda$ = -1 (logistic), 0 (Gompertz) or free:
    $(V/V_\\infty)^\\lambda = 1 + ((V_0/V_\\infty)^\\lambda - 1) e^{-\\omega t}$. All volumes 0: 0. No forecast above
    the largest volume that is known of anybody (a law that explodes would otherwise score without bound).

    **Reference:** Ghaffari Laleh et al., PLOS Comput. Biol. 18 (2022) e1009822; Blaom & Okon, TumorGrowth.jl.
    """
    largest = max(float(known.of(s)[1].max()) for s in range(len(known.counts)) if known.counts[s])
    found = np.empty((asked.subject.size, 1))
    for s in np.unique(asked.subject).tolist():
        days, values = known.of(s)
        cases, curve = np.flatnonzero(asked.subject == s), fitted_law(law, days, values)
        found[cases, 0] = np.minimum(curve(asked.day[cases]), largest)
    return found


def fitted_law(law: str, days: np.ndarray, values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The curve of the best fit: the best of two starts (from the first reading up, and down)."""
    scale, start = float(values.max()), float(days[0])
    if scale == 0.0:
        return np.zeros_like
    y, t = values / scale, days - start
    first = np.log(max(y[0], 1e-3))
    best = None
    for slope in (-1.0, 1.0):
        guess, low, high = _setting(law, first, slope)
        fit = least_squares(lambda q: _curve(law, q, t) - y, guess, bounds=(low, high), max_nfev=200)
        best = fit if best is None or fit.cost < best.cost else best
    assert best is not None
    return lambda day: scale * _curve(law, best.x, day - start)


def _setting(law: str, first: float, slope: float) -> tuple[list[float], list[float], list[float]]:
    """Start and bounds: of log V_0 and the rate g, or of log V_0, log V_infinity, omega and (general) lambda."""
    if law == "exponential":
        return [first, 0.002 * slope], [-12.0, -_RATES[1]], [3.0, _RATES[1]]
    guess, low, high = [first, first + 0.7 * slope, 0.01], [-12.0, -14.0, _RATES[0]], [3.0, 5.0, _RATES[1]]
    return (guess, low, high) if _SHAPES[law] is not None else ([*guess, 0.3], [*low, -2.0], [*high, 2.0])


def _curve(law: str, q: np.ndarray, t: np.ndarray) -> np.ndarray:
    if law == "exponential":
        return np.exp(np.clip(q[0] + q[1] * t, -50.0, 50.0))
    given = _SHAPES[law]
    shape = float(q[3]) if given is None else given
    gap, fade = q[0] - q[1], np.exp(-q[2] * t)
    if abs(shape) < 1e-6:
        return np.exp(q[1] + gap * fade)
    inside = 1.0 + np.expm1(np.clip(shape * gap, -50.0, 50.0)) * fade
    return np.exp(q[1] + np.log(inside) / shape)
