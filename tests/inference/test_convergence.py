"""R-hat and effective draws of chains that are right and of chains that are not; what may not be used is refused."""

import dataclasses

import numpy as np
import pytest

from tumortwin.inference import NotConverged, Posterior, convergence, require_converged

CHAINS, DRAWS = 4, 500


def posterior(draws, **diagnostics):
    return Posterior(draws={"rate": np.asarray(draws)}, log_weights=None, diagnostics=diagnostics, statement="")


def chains(seed=0, memory=0.0):
    """Stationary autoregressive chains of unit variance."""
    rng = np.random.default_rng(seed)
    x = np.empty((CHAINS, DRAWS))
    x[:, 0] = rng.normal(size=CHAINS)
    for i in range(1, DRAWS):
        x[:, i] = memory * x[:, i - 1] + np.sqrt(1 - memory**2) * rng.normal(size=CHAINS)
    return x


def test_independent_draws_are_all_effective():
    found = convergence(posterior(chains()))
    assert found.r_hat["rate"] < 1.005
    assert found.bulk["rate"] == pytest.approx(CHAINS * DRAWS, rel=0.1)
    assert found.tail["rate"] == pytest.approx(CHAINS * DRAWS, rel=0.15)


def test_draws_of_a_chain_with_memory_are_worth_the_closed_form():
    """n (1 - phi) / (1 + phi) of the mean of an autoregressive chain."""
    memory = 0.6
    sizes = [convergence(posterior(chains(seed, memory))).bulk["rate"] for seed in range(8)]
    assert np.mean(sizes) == pytest.approx(CHAINS * DRAWS * (1 - memory) / (1 + memory), rel=0.1)


def test_the_numbers_are_those_of_arviz():
    """Of `chains(3, .8)` exponentiated twice (heavy tails), by arviz 0.22: rhat, ess bulk, ess tail."""
    found = convergence(posterior(np.exp(np.exp(chains(3, 0.8)))))
    expected = (1.0215967343, 209.51538014, 438.30865755)
    assert (found.r_hat["rate"], found.bulk["rate"], found.tail["rate"]) == pytest.approx(expected, rel=1e-3)


def test_a_chain_elsewhere_a_narrow_chain_and_a_drift_are_seen():
    elsewhere, narrow, drifting = chains(), chains(), chains()
    elsewhere[0] += 1.0
    narrow[0] *= 0.3
    drifting += np.linspace(0, 2, DRAWS)
    for bad in (elsewhere, narrow, drifting):
        assert convergence(posterior(bad)).worst_r_hat > 1.03
    # A shift of one chain is not hidden by tails without a variance.
    heavy = np.tan(np.pi * (np.random.default_rng(0).uniform(size=(CHAINS, DRAWS)) - 0.5))
    assert convergence(posterior(heavy)).worst_r_hat < 1.01
    heavy[0] += 3.0
    assert convergence(posterior(heavy)).worst_r_hat > 1.05


def test_a_good_posterior_is_handed_back_and_a_vector_is_judged_entry_by_entry():
    good = posterior(chains(), divergences=0.0)
    assert require_converged(good) is good
    several = np.stack([chains(1), chains(2), np.ones((CHAINS, DRAWS))], axis=-1)
    found = convergence(posterior(several))
    assert list(found.r_hat) == ["rate[0]", "rate[1]"]  # what never moves is left out
    several[0, :, 1] += 1.0
    with pytest.raises(NotConverged, match=r"(?s)R-hat <= 1.01.* of rate\[1\].*try: .*warmup"):
        require_converged(posterior(several))


def test_what_failed_is_said_with_what_to_try():
    with pytest.raises(NotConverged, match=r"(?s)400 effective draws in the middle.*of rate.*try: +more draws"):
        require_converged(posterior(chains(memory=0.97)), largest_r_hat=2.0)
    with pytest.raises(NotConverged, match=r"at most 0 divergences\nreceived: 3\ntry: +accept=0.95"):
        require_converged(posterior(chains(), divergences=3.0))
    require_converged(posterior(chains(), divergences=3.0), most_divergences=5.0)
    with pytest.raises(NotConverged, match="divergences\nreceived: nan"):
        require_converged(posterior(chains(), divergences=float("nan")))


def test_weighted_draws_and_modes_are_judged_by_what_they_say():
    weights = np.full((1, 1000), -np.log(1000))
    drawn = {"rate": np.random.default_rng(0).normal(size=(1, 1000))}
    good = Posterior(drawn, weights, {"k_hat": 0.3, "ess": 800.0, "sample_reliable": 1.0, "map_converged": 1.0}, "")
    assert require_converged(good) is good
    for name, value, match in (
        ("k_hat", 0.9, "k-hat <= 0.7\nreceived: 0.90\ntry: +more rounds"),
        ("ess", 20.0, "400 effective draws\nreceived: 20"),
        ("sample_reliable", 0.0, "settled"),
        ("map_converged", 0.0, "more starts"),
    ):
        with pytest.raises(NotConverged, match=match):
            require_converged(dataclasses.replace(good, diagnostics={**good.diagnostics, name: value}))
    with pytest.raises(NotConverged, match="two chains, or a diagnosis"):
        require_converged(dataclasses.replace(good, diagnostics={}))
    with pytest.raises(ValueError, match="two chains of 8 equally weighted draws; received: 1 of 1000, weighted"):
        convergence(good)
