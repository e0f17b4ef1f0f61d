"""The simulated gliomas of `experiments/calibration`: the same anatomy, patients and bank of solves."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.amortised.study import Case, unconstrained
from experiments.calibration import glioma
from experiments.calibration.bank import BankCalibrator
from tumortwin.inference import NutsCalibrator, Problem
from tumortwin.surrogates import BankSimulator, leading_modes

LOST = 1e-6  # share of the variance of noise-free maps that the features leave out


def case(
    members: int, batch: int, sampler: NutsCalibrator, *, chunk: int, advance: Any, key: Array
) -> tuple[Case, BankCalibrator]:
    """Training on a bank of solves, with new noise in every batch; and the bank as a calibrator of its own."""
    base = glioma.template()
    bank = glioma.bank_of(base, members, chunk=chunk, advance=advance, key=key)
    simulator = BankSimulator(base, _coordinates(base, bank), bank.predictions, batch)
    features = leading_modes(bank.predictions, LOST)
    patients = glioma.Patients(base, forecast=False)
    return Case("glioma", base, simulator, features, patients, glioma.JUDGED, glioma.SHORT, sampler), bank


def _coordinates(base: Problem, bank: BankCalibrator) -> np.ndarray:
    """z of the members; the noise, which the simulator draws anew, at its median."""
    values = {path: jnp.asarray(bank.values[path]) for path in (glioma.DIFFUSIVITY, glioma.RATE)}
    noise = base.prior.quantile(0.5)[glioma.NOISE]
    return np.asarray(unconstrained(base, {**values, glioma.NOISE: jnp.full(len(bank.predictions), noise)}))
