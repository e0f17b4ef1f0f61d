"""What a choice costs that somebody else's model has made."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from tumortwin.control import CVaR

LEVEL = 0.8


@dataclasses.dataclass(frozen=True)
class Regrets:
    """Of one planner, all as shares of what is at stake, worst minus best by the truth (0: the best; 1: the worst).

    `personal` [draw]: each fresh tumor with a course of its own, its parameters known; `common`: one course for all,
    chosen by CVaR over the planning draws, judged by CVaR over the fresh ones; `personal_choice` [draw] and
    `common_choice`: what was chosen.
    """

    personal: Float[np.ndarray, " draw"]
    common: float
    personal_choice: Int[np.ndarray, " draw"]
    common_choice: int


def regrets(said: Float[np.ndarray, "option draw"], truth: Float[np.ndarray, "option draw"], planning: int) -> Regrets:
    """Regrets of what one planner `said` of every course, by the `truth`; the first `planning` draws choose the common
    course, the others judge."""
    fresh = truth[:, planning:]
    heard = np.where(np.isfinite(said), said, np.inf)
    own = heard[:, planning:].argmin(axis=0)
    best, worst = fresh.min(axis=0), fresh.max(axis=0)
    silent = np.isinf(heard[:, planning:]).all(axis=0)  # no answer at all: as bad as the worst
    personal = np.where(silent, 1.0, (fresh[own, np.arange(own.size)] - best) / (worst - best))
    risk = CVaR(LEVEL)
    judged = np.array([float(risk(jnp.asarray(row))) for row in fresh])
    # A course with which somebody has no answer is not chosen.
    planned = [float(risk(jnp.asarray(row))) if np.isfinite(row).all() else np.inf for row in heard[:, :planning]]
    common = int(np.argmin(planned))
    missed = 1.0 if np.isinf(planned).all() else (judged[common] - judged.min()) / (judged.max() - judged.min())
    return Regrets(personal, missed, own, common)
