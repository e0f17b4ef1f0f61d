"""A posterior that takes in new data as they come, each version a new object."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Array

from tumortwin.inference._calibrate import Progress, State
from tumortwin.inference._posterior import Posterior
from tumortwin.inference._problem import AbstractProblem
from tumortwin.inference._smc import SmcCalibrator, log_targets

# Relative difference at which a stored log density and a new one still count as the same (rounding of another program).
SAME = 1e-6


@dataclasses.dataclass(frozen=True)
class Update:
    """One line of a history: the version it made, the days [day] and names of the terms, and how it came in.

    `late`: a term was of an earlier day than one that was already in. `log_score`: log of the probability (density) of
    the new terms given those before.
    """

    version: int
    days: tuple[float, ...]
    terms: tuple[str, ...]
    late: bool
    log_score: float


@dataclasses.dataclass(frozen=True)
class Particles:
    """A posterior in the middle of its data: particles, and the names of the terms they have taken in. Immutable.

    `state` is that of an `SmcCalibrator`, arrays only, so that it can be kept and taken up again.
    """

    state: State
    taken: tuple[str, ...]
    log_target: np.ndarray
    history: tuple[Update, ...] = ()

    @property
    def version(self) -> int:
        """How many updates made it (0: the prior)."""
        return len(self.history)

    def posterior(self, problem: AbstractProblem, calibrator: SmcCalibrator) -> Posterior:
        """As every calibrator hands it back."""
        return calibrator.postprocess(problem, self.state)


def assimilate(
    particles: Particles | None,
    problem: AbstractProblem,
    calibrator: SmcCalibrator,
    *,
    key: Array,
    progress: Progress | None = None,
) -> Particles:
    """The particles after the terms of `problem` that they have not seen.

    $$ p(z \\mid y_{old}, y_{new}) \\propto p(z \\mid y_{old})\\, p(y_{new} \\mid z) $$

    for parameters that do not change in time the order of the data does not matter: a late term is a factor like any
    other. The result is the posterior of all terms up to Monte-Carlo error.

    - Terms already taken in, by name (`AbstractProblem.term_names`: day and content), count once. With no new one the
      very same object comes back: the same scan twice changes nothing.
    - `particles=None` starts from the prior. The weights of images are those of the problem.

    **Raises:** `ValueError` when what was taken in is missing from the problem, or has another likelihood now (another
    treatment, model, or correction of a value): particles cannot forget; calibrate anew (`particles=None`).
    """
    if particles is None:
        state = calibrator.start(problem, key=key)
        particles = Particles(state, (), log_targets(problem, calibrator, state))
    names, days = problem.term_names(), problem.term_days
    terms = [name for name, day in zip(names, days, strict=True) if not np.isnan(day)]
    gone = [name for name in particles.taken if name not in terms]
    if gone:
        raise ValueError(
            f"required: every term that was taken in; received a problem without: {', '.join(gone[:3])}"
            f"{' ...' if len(gone) > 3 else ''}; try: `particles=None`, which starts again from all that is known"
        )
    taken = set(particles.taken)
    new = [(float(day), name) for name, day in zip(names, days, strict=True) if name in set(terms) - taken]
    if not new:
        return particles
    state = _continued(particles, problem, calibrator, key)
    before = float(state["log_evidence"])
    while not calibrator.terminate(problem, state):
        state = calibrator.step(problem, state)
        if progress is not None:
            progress("assimilate", *calibrator.progress(problem, state))
    old = [day for name, day in zip(names, days, strict=True) if name in taken]
    update = Update(
        version=particles.version + 1,
        days=tuple(sorted({day for day, _ in new})),
        terms=tuple(name for _, name in new),
        late=bool(old and min(day for day, _ in new) < max(old)),
        log_score=float(state["log_evidence"]) - before,
    )
    found = (*particles.taken, *update.terms)
    return Particles(state, found, log_targets(problem, calibrator, state), (*particles.history, update))


def _continued(particles: Particles, problem: AbstractProblem, calibrator: SmcCalibrator, key: Array) -> State:
    """A state about to take in what is new, or a refusal."""
    z, taken = particles.state["z"], set(particles.taken)
    if z.shape != (calibrator.particles, problem.size):
        raise ValueError(
            f"required: {calibrator.particles} particles of {problem.size} entries, as the calibrator and the problem "
            f"have; received: {z.shape[0]} of {z.shape[1]}; try: `particles=None`"
        )
    state = {
        **particles.state,
        **calibrator.fresh(problem, z),
        "key": np.asarray(jax.random.key_data(jax.random.fold_in(key, particles.version))),
        "log_weights": particles.state["log_weights"],
        "scale": particles.state["scale"],
        "exponents": np.asarray([float(name in taken) for name in problem.term_names()]),
    }
    if "weights" in state:
        state["weights"] = np.asarray(problem.weights)  # type: ignore[attr-defined]
    now = log_targets(problem, calibrator, state)
    if not np.allclose(now, particles.log_target, rtol=SAME, atol=SAME):
        raise ValueError(
            "required: what was taken in to have the likelihood it had; received: another, by up to "
            f"{np.max(np.abs(now - particles.log_target)):.3g} nats (a treatment, the model, the prior or a weight is "
            "not what it was); try: `particles=None`, which starts again from all that is known"
        )
    return state
