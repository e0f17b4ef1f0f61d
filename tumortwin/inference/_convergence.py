"""May a posterior be used? R-hat, effective draws, divergences and k-hat, and a refusal where they do not hold."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpyro.diagnostics import effective_sample_size, gelman_rubin
from scipy import stats

from tumortwin._errors import NotConverged
from tumortwin.inference._pareto import LARGEST_K_HAT
from tumortwin.inference._posterior import Posterior

LARGEST_R_HAT = 1.01
LEAST_EFFECTIVE = 400.0
_TAILS = (0.05, 0.95)
_FEWEST_DRAWS = 8  # of a chain: four in each half
_NAMED = 3  # of the quantities that failed, in a message


@dataclasses.dataclass(frozen=True)
class Convergence:
    """By quantity (vectors entry by entry): `r_hat`, effective draws of the middle (`bulk`) and of the tails."""

    r_hat: dict[str, float]
    bulk: dict[str, float]
    tail: dict[str, float]

    @property
    def worst_r_hat(self) -> float:
        """The largest R-hat."""
        return max(self.r_hat.values())

    @property
    def least_effective(self) -> float:
        """The fewest effective draws, in the middle or in a tail."""
        return min(min(self.bulk.values()), min(self.tail.values()))


def convergence(posterior: Posterior) -> Convergence:
    """R-hat and effective draws of every quantity of an unweighted posterior of two chains or more.

    $$ \\hat R = \\sqrt{\\frac{\\frac{n-1}{n} W + \\frac1n B}{W}}, \\qquad
       z_s = \\Phi^{-1}\\left(\\frac{r_s - 3/8}{S + 1/4}\\right) $$

    on the halves of the chains, of the normalized ranks `z` of the draws and of those of their distances from the
    median, the larger of the two: a chain that lies elsewhere shows in the first, one that is too narrow in the second,
    and neither is hidden by heavy tails. Effective draws of the middle are those of `z`, of the tails the fewer of
    those of `x <= q05` and `x <= q95`. Quantities that never move (a correlation with itself) are left out.

    **Raises:** `ValueError` for weighted draws, a single chain, or fewer than eight draws a chain.

    **Good values:** R-hat at most 1.01, effective draws at least 400 (100 a chain).

    Reference: Vehtari, Gelman, Simpson, Carpenter & Buerkner (2021), Bayesian Anal. 16:667.
    """
    chains, draws = posterior.weights.shape
    if posterior.log_weights is not None or chains < 2 or draws < _FEWEST_DRAWS:
        raise ValueError(
            f"required: at least two chains of {_FEWEST_DRAWS} equally weighted draws; received: {chains} of {draws}"
            f"{'' if posterior.log_weights is None else ', weighted'}"
        )
    names, columns = [], []
    for path, values in posterior.draws.items():
        for name, column in _entries(path, values):
            if np.ptp(column) > 0:
                names.append(name)
                columns.append(column)
    halves = _halves(np.stack(columns, axis=-1))
    folded = np.abs(halves - np.median(halves, axis=(0, 1)))
    r_hat = np.maximum(gelman_rubin(_normal_ranks(halves)), gelman_rubin(_normal_ranks(folded)))
    bulk = effective_sample_size(_normal_ranks(halves))
    tails = [
        effective_sample_size((halves <= np.quantile(halves, level, axis=(0, 1))).astype(float)) for level in _TAILS
    ]
    return Convergence(*(_named(names, row) for row in (r_hat, bulk, np.minimum(*tails))))


def require_converged(
    posterior: Posterior,
    *,
    largest_r_hat: float = LARGEST_R_HAT,
    least_effective: float = LEAST_EFFECTIVE,
    most_divergences: float = 0.0,
    largest_k_hat: float = LARGEST_K_HAT,
) -> Posterior:
    """The posterior itself, when it may be used; an interval from one that has not converged is not an interval.

    Chains are judged by `convergence` of every quantity and by the divergences of the sampler, weighted draws by k-hat,
    by their effective number and by the verdict of the sampler (`sample_reliable`), a mode by `map_converged`.

    **Raises:** `NotConverged`, which names everything that failed and says what to try for each.
    """
    found = list(_failures(posterior, largest_r_hat, least_effective, most_divergences, largest_k_hat))
    if found:
        required, received, advice = zip(*found, strict=True)
        raise NotConverged(
            f"required: {', '.join(required)}\nreceived: {', '.join(received)}\n"
            f"try:      {'; '.join(dict.fromkeys(advice))}"
        )
    return posterior


def _failures(
    posterior: Posterior, largest_r_hat: float, least_effective: float, most_divergences: float, largest_k_hat: float
) -> Iterator[tuple[str, str, str]]:
    """(required, received, what to try) of everything that does not hold; NaN holds nothing."""
    said, judged = posterior.diagnostics, False
    if posterior.log_weights is None and posterior.weights.shape[0] > 1:
        judged, found = True, convergence(posterior)
        bad = {n: v for n, v in found.r_hat.items() if not v <= largest_r_hat}
        if bad:
            yield f"R-hat <= {largest_r_hat:g}", _worst(bad, largest=True), _TRY_LONGER
        for where, numbers in (("in the middle", found.bulk), ("in the tails", found.tail)):
            few = {n: v for n, v in numbers.items() if not v >= least_effective}
            if few:
                yield f"{least_effective:g} effective draws {where}", _worst(few, largest=False), _TRY_DRAWS
    elif "ess" in said:
        judged = True
        if not said["ess"] >= least_effective:
            yield f"{least_effective:g} effective draws", f"{said['ess']:.0f}", _TRY_ROUNDS
    if not said.get("divergences", 0.0) <= most_divergences:
        yield f"at most {most_divergences:g} divergences", f"{said['divergences']:g}", _TRY_SMALLER_STEPS
    if "k_hat" in said:
        judged = True
        if not said["k_hat"] <= largest_k_hat:
            yield f"k-hat <= {largest_k_hat:g}", f"{said['k_hat']:.2f}", _TRY_ROUNDS
    if said.get("sample_reliable", 1.0) != 1.0:
        yield "a sample that settled", "one that still moved after its last round", _TRY_ROUNDS
    if "map_converged" in said:
        judged = True
        if said["map_converged"] != 1.0:
            yield "a mode that was found", "a search that ended elsewhere", _TRY_STARTS
    if not judged:
        yield "two chains, or a diagnosis of the sample", "neither", _TRY_SAMPLER


_TRY_LONGER = "more warmup, or the other centering of the effects"
_TRY_DRAWS = "more draws, or a model with fewer confounded parameters (see the statement of what is identified)"
_TRY_SMALLER_STEPS = "accept=0.95, the other centering of the effects, or tighter priors of the spreads"
_TRY_ROUNDS = "more rounds of draws, or NUTS"
_TRY_STARTS = "more starts"
_TRY_SAMPLER = "NutsCalibrator or PsisCalibrator"


def _worst(found: dict[str, float], *, largest: bool) -> str:
    """The worst few, by name."""
    order = sorted(found, key=lambda name: found[name], reverse=largest)
    rest = len(order) - _NAMED
    return ", ".join(f"{found[n]:.4g} of {n}" for n in order[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _entries(path: str, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Every entry [chain, draw] of a quantity, with its name."""
    if values.ndim == 2:
        yield path, values
        return
    for index in np.ndindex(*values.shape[2:]):
        yield f"{path}[{','.join(map(str, index))}]", values[(slice(None), slice(None), *index)]


def _halves(chains: np.ndarray) -> np.ndarray:
    """[chain, draw, ...] to twice as many chains, a middle draw left out."""
    half = chains.shape[1] // 2
    return np.concatenate([chains[:, :half], chains[:, -half:]])


def _normal_ranks(values: np.ndarray) -> np.ndarray:
    flat = values.reshape(-1, values.shape[-1])
    ranks = stats.rankdata(flat, axis=0)
    return stats.norm.ppf((ranks - 0.375) / (len(flat) + 0.25)).reshape(values.shape)


def _named(names: list[str], row: np.ndarray) -> dict[str, float]:
    return dict(zip(names, map(float, row), strict=True))
