"""The quick posteriors of this study against the No-U-Turn sampler: means and standard deviations of what is shared.

`python -m experiments.maeve_combination.check weight|volume [data.root=DIR]`. Both in the coordinates of the prior
(`Population.heads`); the sampler moves in those in which the quick posterior is a standard normal one, and is told
nothing else of it. `volume` has 177 unknowns and takes long: it is no part of the experiment.
"""

import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.diagnostics import effective_sample_size, gelman_rubin
from numpyro.infer import MCMC, NUTS

from experiments.maeve_combination.model import volume_problem, weight_problem
from experiments.maeve_combination.population import Population, fitted
from experiments.maeve_combination.record import animals_of
from tumortwin.io import load_table
from tumortwin.runs import Verdict, configure_backend, measured

CHAINS, WARMUP, DRAWS, TREE_DEPTH = 2, 200, 300, 7
QUICK_DRAWS = 4000  # of the quick posterior


def sampled(
    quick: Population, *, chains: int = CHAINS, warmup: int = WARMUP, draws: int = DRAWS, seed: int = 0
) -> tuple[np.ndarray, int]:
    """Draws of what is shared [chain, draw, parameter], and the number of divergences."""
    problem, center, factor = quick.problem, jnp.asarray(quick.z), jnp.asarray(np.linalg.cholesky(quick.covariance))
    kernel = NUTS(potential_fn=lambda e: -problem.log_density(center + factor @ e), max_tree_depth=TREE_DEPTH)
    sampler = MCMC(
        kernel, num_warmup=warmup, num_samples=draws, num_chains=chains, chain_method="sequential", progress_bar=False
    )
    start, key = jax.random.split(jax.random.key(seed))
    begun = 0.5 * jax.random.normal(start, (chains, center.size))
    sampler.run(key, init_params=begun, extra_fields=("diverging",))
    moved = np.asarray(sampler.get_samples(group_by_chain=True))
    whole = np.asarray(center) + moved @ np.asarray(factor).T
    divergences = int(np.asarray(sampler.get_extra_fields()["diverging"]).sum())
    return whole[..., : problem.prior.size], divergences


def compared(name: str, quick: Population, drawn: np.ndarray, divergences: int) -> Iterator[Verdict]:
    """Means in standard deviations of the sampler's, and ratios of standard deviations, by parameter and at worst."""
    mean, spread = drawn.mean(axis=(0, 1)), drawn.std(axis=(0, 1))
    off, ratio = (quick.heads.mean(axis=0) - mean) / spread, quick.heads.std(axis=0) / spread
    yield measured(f"nuts_{name}_r_hat", np.max(gelman_rubin(drawn)))
    yield measured(f"nuts_{name}_least_ess", np.min(effective_sample_size(drawn)))
    yield measured(f"nuts_{name}_divergences", divergences)
    yield measured(f"nuts_{name}_largest_mean_difference", np.abs(off).max(), "sd")
    yield measured(f"nuts_{name}_least_sd_ratio", ratio.min())
    yield measured(f"nuts_{name}_largest_sd_ratio", ratio.max())
    for path, a, b in zip(quick.problem.prior.names, off, ratio, strict=True):
        yield measured(f"nuts_{name}_{path}_mean_difference", a, "sd")
        yield measured(f"nuts_{name}_{path}_sd_ratio", b)


def main(which: str, root: str | None) -> None:
    """Prints the comparison of one of the two posteriors."""
    configure_backend()
    animals = animals_of(load_table("maeve_gdc0084_temozolomide", root))
    problem = {"weight": weight_problem, "volume": volume_problem}[which](animals)
    quick = fitted(problem, QUICK_DRAWS, rng=np.random.default_rng(0))
    drawn, divergences = sampled(quick)
    for verdict in compared(which, quick, drawn, divergences):
        print(verdict.line(), flush=True)


if __name__ == "__main__":
    given = dict(word.split("=", 1) for word in sys.argv[2:])
    main(sys.argv[1], given.get("data.root"))
