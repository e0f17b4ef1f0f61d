"""What every forecaster is given and asked: the same rows for all of them."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from tumortwin.models import AbstractCompartmentModel

MECHANISM, NETWORK, HYBRID = "mechanism", "network", "hybrid"
LEARNED = (MECHANISM, NETWORK, HYBRID)
PERSISTENCE = "persistence"


class Rows(eqx.Module):
    """Curves to be forecast, all arrays [row ...]; `days` count from the last known reading of the row.

    `start`: that reading; `seen`, `valid` [row, time]: later readings on the scale h, and whether they are there;
    `given_days`, `given` [row, event]: doses; `level` [row]: exposure; `own` [row, _]: what the mechanism is told of a
    row; `features` [row, _]: what a network is told of it beside the state.
    """

    start: Float[Any, " row"]
    days: Float[Any, "row time"]
    seen: Float[Any, "row time"]
    valid: Float[Any, "row time"]
    given_days: Float[Any, "row event"]
    given: Float[Any, "row event"]
    level: Float[Any, " row"]
    own: Float[Any, "row _"]
    features: Float[Any, "row _"]

    def where(self, keep: np.ndarray) -> "Rows":
        """The rows for which `keep` is True, or of these numbers."""
        return Rows(*(np.asarray(getattr(self, f.name))[keep] for f in dataclasses.fields(self)))

    def filled(self, size: int) -> "Rows":
        """Rows without readings behind the others, up to a multiple of `size`: one shape for all programs."""
        count = len(self.start)
        wanted = -(-count // size) * size
        more = self.where(np.minimum(np.arange(wanted), count - 1))
        valid = np.where(np.arange(wanted)[:, None] < count, more.valid, 0.0)
        return eqx.tree_at(lambda r: r.valid, more, valid)


Build = Callable[[Array, Rows], AbstractCompartmentModel]
"""`(z, rows) -> model`: a mechanism from its standard normal parameters z, the rows' own starts and numbers in it."""


@dataclasses.dataclass(frozen=True)
class Law:
    """What rates are made of, without data: `count` of z, what `mechanism` makes of it; `blank`, a model that says
    nothing, for the network alone; `closures` for it and for the hybrid, by kind and the key of their first weights;
    `steps` of the solver between two readings in training; `tolerance` of a reading; `hold`: a burden to the scale h;
    `batch`: rows in a call of a compiled program.
    """

    count: int
    mechanism: Build
    blank: Callable[[Rows], AbstractCompartmentModel]
    closures: Callable[[str, Array], Any]
    steps: int
    tolerance: float
    hold: Callable[[Any], Any]
    batch: int


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """One data set and protocol.

    `subject` [row] names; `asked` [row]: rows that may be forecast when their subject's turn comes (others are for
    training alone); `pool` [row, time]: which readings share their errors in a conformal interval; `back`: h to the
    scale of the scores; `raw` [row, time]: the readings on that scale, in `unit`; `parts(seed)`: rounds of (training,
    calibration, test) rows, in which every asked subject is tested once.
    """

    name: str
    unit: str
    law: Law
    rows: Rows
    subject: np.ndarray
    asked: Bool[np.ndarray, " row"]
    pool: Int[np.ndarray, "row time"]
    raw: Float[np.ndarray, "row time"]
    back: Callable[[np.ndarray], np.ndarray]
    parts: Callable[[int], Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]]


def rotation(
    subject: np.ndarray, asked: np.ndarray, folds: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Folds of the asked subjects: one is tested, the next one calibrates, the others (and who is not asked) train."""
    names = np.unique(subject[asked])
    order = np.random.default_rng(seed).permutation(names.size)
    fold = dict(zip(names[order].tolist(), (np.arange(names.size) % folds).tolist(), strict=True))
    own = np.array([fold.get(s, -1) for s in subject.tolist()])
    for k in range(folds):
        tested, calibrating = own == k, own == (k + 1) % folds
        yield ~tested & ~calibrating, calibrating & asked, tested & asked


def quarter(subject: np.ndarray, among: np.ndarray, seed: int) -> np.ndarray:
    """A quarter of the subjects `among` the rows."""
    names = np.unique(subject[among])
    chosen = np.random.default_rng(seed).permutation(names)[: max(names.size // 4, 1)]
    return among & np.isin(subject, chosen)
