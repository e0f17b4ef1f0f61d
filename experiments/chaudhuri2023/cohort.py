"""Virtual patients, their three scans, and their posteriors by a bank of simulations that all of them share.

Priors (framework defaults; the paper's could not be read), with N(0) in cm^3:

    growth_rate    ~ LogNormal(ln .05, .5)  1/day
    alpha          ~ LogNormal(ln .05, .5)  1/Gy
    capacity_ratio ~ LogNormal(ln 5, .5), above 1.1       K / N(0)
    initial        ~ LogNormal(ln 30, .8)   cm^3
    alpha_beta     = 10 Gy, or LogNormal(ln 10, .5) Gy    where it is unknown

A scan reads N exp(e), e ~ Normal(0, .1). Since ln N(0) shifts every reading alike, it is integrated out exactly: the
likelihood of a bank member is a normal density of three correlated readings, and N(0) given the member is normal.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from scipy.special import ndtr

from experiments.chaudhuri2023.model import LOGISTIC, SCANS, Draw, Law, scans
from tumortwin.inference import effective_draws, pareto_smooth

MEDIAN = {"growth_rate": 0.05, "alpha": 0.05, "capacity_ratio": 5.0, "alpha_beta": 10.0}
SPREAD = 0.5
LEAST_RATIO = 1.1
INITIAL, INITIAL_SPREAD = 30.0, 0.8  # [cm^3], of the logarithm
NOISE = 0.1
"""Standard deviation of the logarithm of a reading."""

TAIL = 0.025
"""Outside a central 95 % interval, on each side."""

Drawn = dict[str, np.ndarray]


def from_prior(size: int, ratio_known: bool, rng: np.random.Generator) -> Drawn:
    """Draws [size] of what a course depends on."""
    least = stats.norm.cdf((np.log(LEAST_RATIO) - np.log(MEDIAN["capacity_ratio"])) / SPREAD)
    found = {}
    for name, middle in MEDIAN.items():
        level = rng.uniform(size=size)
        if name == "capacity_ratio":
            level = least + (1.0 - least) * level
        found[name] = middle * np.exp(SPREAD * stats.norm.ppf(level))
    if ratio_known:
        found["alpha_beta"] = np.full(size, MEDIAN["alpha_beta"])
    return found


def log_scans(draws: Drawn, law: Law) -> np.ndarray:
    """ln N / N(0) [draw scan]."""
    return np.asarray(_log_scans(as_draws(draws), law))


def as_draws(draws: Drawn) -> Draw:
    """The same as arrays of JAX."""
    return {name: jnp.asarray(value) for name, value in draws.items()}


def _log_scans(draws: Draw, law: Law) -> jax.Array:
    return jax.jit(jax.vmap(lambda draw: scans(draw, law)))(draws)


@dataclasses.dataclass(frozen=True)
class Patients:
    """True parameters [patient], `initial` [cm^3] and ln readings [patient scan]."""

    truth: Drawn
    initial: np.ndarray
    readings: np.ndarray


def patients(size: int, ratio_known: bool, law: Law, rng: np.random.Generator) -> Patients:
    """Truths from the prior, readings under `law`."""
    truth = from_prior(size, ratio_known, rng)
    initial = INITIAL * np.exp(INITIAL_SPREAD * rng.standard_normal(size))
    noise = NOISE * rng.standard_normal((size, len(SCANS)))
    return Patients(truth, initial, np.log(initial)[:, None] + log_scans(truth, law) + noise)


@dataclasses.dataclass(frozen=True)
class Bank:
    """Draws of the prior [member] and what the scans would read of them, ln N / N(0) [member scan]."""

    members: Drawn
    curves: np.ndarray

    @classmethod
    def of(cls, size: int, ratio_known: bool, rng: np.random.Generator) -> "Bank":
        members = from_prior(size, ratio_known, rng)
        return cls(members, log_scans(members, LOGISTIC))


@dataclasses.dataclass(frozen=True)
class Posteriors:
    """Weights [patient member] over the bank; mean [patient member] and standard deviation of ln N(0) given a member;
    effective number of members and k-hat [patient]."""

    bank: Bank
    weights: np.ndarray
    initial_mean: np.ndarray
    initial_spread: float
    effective: np.ndarray
    k_hat: np.ndarray


def posteriors(bank: Bank, readings: np.ndarray) -> Posteriors:
    """The exact likelihood of every member for every patient, with N(0) integrated out, smoothed."""
    off = readings[:, None, :] - bank.curves[None] - np.log(INITIAL)  # ln N(0) / 30 cm^3 as each scan sees it
    n, between, within = len(SCANS), INITIAL_SPREAD**2, NOISE**2
    spread = off - off.mean(axis=2, keepdims=True)
    log_likelihood = -0.5 * (spread**2).sum(axis=2) / within
    log_likelihood -= 0.5 * off.mean(axis=2) ** 2 / (between + within / n)
    variance = 1.0 / (1.0 / between + n / within)
    mean = np.log(INITIAL) + variance * off.sum(axis=2) / within
    smoothed = [pareto_smooth(row) for row in log_likelihood]
    weights = np.exp([row for row, _ in smoothed])
    effective = np.asarray([effective_draws(row) for row, _ in smoothed])
    return Posteriors(bank, weights, mean, float(np.sqrt(variance)), effective, np.asarray([k for _, k in smoothed]))


def resampled(found: Posteriors, size: int, rng: np.random.Generator) -> Drawn:
    """Equal-weight draws [patient draw] by systematic resampling."""
    levels = (np.arange(size) + rng.uniform(size=(len(found.weights), 1))) / size
    ends = np.cumsum(found.weights, axis=1)
    index = np.stack([np.searchsorted(e / e[-1], level) for e, level in zip(ends, levels, strict=True)])
    return {name: value[index] for name, value in found.bank.members.items()}


def inside(found: Posteriors, who: Patients) -> dict[str, np.ndarray]:
    """Whether the truth lies in the central 95 % interval: parameter -> [patient]."""
    return {name: (share >= TAIL) & (share <= 1.0 - TAIL) for name, share in below_truth(found, who).items()}


def below_truth(found: Posteriors, who: Patients) -> dict[str, np.ndarray]:
    """Posterior probability [patient] that a parameter lies below its truth: parameter -> [patient].

    N(0) is integrated out exactly given a member, so its share (and that of K = N(0) times the ratio of a member) is a
    mean of normal distribution functions over the members, without a draw:

    $$ P(N_0 < n) = \\sum_i w_i \\, \\Phi\\left(\\frac{\\ln n - m_i}{s}\\right) $$
    """
    members, log_ratio = found.bank.members, np.log(found.bank.members["capacity_ratio"])
    capacity = who.truth["capacity_ratio"] * who.initial

    def size(limit: np.ndarray, shift: np.ndarray | float) -> np.ndarray:
        return _share(found, ndtr((np.log(limit)[:, None] - shift - found.initial_mean) / found.initial_spread))

    known = ["growth_rate", "alpha", *(["alpha_beta"] if np.ptp(members["alpha_beta"]) > 0.0 else [])]
    shares = {name: _share(found, members[name] < who.truth[name][:, None]) for name in known}
    return shares | {"capacity": size(capacity, log_ratio), "initial": size(who.initial, 0.0)}


def _share(found: Posteriors, held: np.ndarray) -> np.ndarray:
    return (found.weights * held).sum(axis=1)


def within(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Whether each truth [patient] lies in the central 95 % of its draws [patient draw]."""
    below = (draws < truth[:, None]).mean(axis=1)
    return (below >= TAIL) & (below <= 1.0 - TAIL)
