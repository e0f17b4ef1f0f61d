"""Fixed steps: which step edges a solve takes. Static, decided in NumPy before anything is traced."""

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import equinox as eqx
import numpy as np

ONE = Fraction(1)


class Phase(NamedTuple):
    """Equal steps from `start` to `end` [day]; `saves` are the step edges whose state is kept (never `start`)."""

    start: float
    end: float
    n_steps: int
    saves: tuple[float, ...]

    @property
    def step(self) -> float:
        """Step length [day]."""
        return (self.end - self.start) / self.n_steps

    @property
    def edges(self) -> np.ndarray:
        """Step edges, ends exact."""
        edges = self.start + np.arange(self.n_steps + 1) * self.step
        edges[-1] = self.end
        return edges


class FixedSteps(eqx.Module):
    """The fast path: equal steps between save times and resections.

    **Arguments:** `max_step` [day]: no step is longer; `max_diffusivity` [mm^2/day]: upper bound of D_w, from the
    prior's truncation: the number of stages is chosen from it, and a diffusivity above it is a failed solve.

    **Good values:** 8 days for an error of some 5e-4 at rho 0.025 /day; steps scale with 1/rho.
    """

    max_step: float = eqx.field(static=True, default=8.0)
    max_diffusivity: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        if not (self.max_step > 0 and self.max_diffusivity > 0):
            raise ValueError(
                f"required: positive max_step and max_diffusivity; received {self.max_step}, {self.max_diffusivity}"
            )

    def phases(self, t0: float, ts: Sequence[float], stops: Sequence[float], steps: Fraction = ONE) -> list[Phase]:
        """The phases of a solve from `t0` that saves at `ts` and stops at `stops` (resections).

        `steps` times as many steps between any two days: 2, or 1/2 where `halvable`.
        """
        cuts = {float(t) for t in stops if t0 < t < max(ts)}
        saves = {float(t) for t in ts}
        pieces = [
            Phase(start, mark, int(n * steps), (mark,) if mark in saves else ())
            for start, mark, n in self._pieces(t0, saves | cuts)
        ]
        return self._merge(pieces, cuts)

    def halvable(self, t0: float, ts: Sequence[float], stops: Sequence[float]) -> bool:
        """Whether every number of steps between two days is even."""
        marks = {float(t) for t in ts} | {float(t) for t in stops if t0 < t < max(ts)}
        return all(n % 2 == 0 for _, _, n in self._pieces(t0, marks))

    def _pieces(self, t0: float, marks: set[float]) -> list[tuple[float, float, int]]:
        """Start, end and number of steps between one mark and the next."""
        ends = sorted(t for t in marks if t > t0)
        return [
            (start, end, max(1, math.ceil((end - start) / self.max_step - 1e-9)))
            for start, end in itertools.pairwise([t0, *ends])
        ]

    @staticmethod
    def _merge(pieces: list[Phase], cuts: set[float]) -> list[Phase]:
        merged: list[Phase] = []
        for piece in pieces:
            last = merged[-1] if merged else None
            if last and piece.start not in cuts and math.isclose(last.step, piece.step, rel_tol=1e-12):
                merged[-1] = Phase(last.start, piece.end, last.n_steps + piece.n_steps, last.saves + piece.saves)
            else:
                merged.append(piece)
        return merged
