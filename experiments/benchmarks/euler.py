"""What a careful NumPy user would write: explicit Euler in single precision, face conductances made once, in place."""

import math

import jax.numpy as jnp
import numpy as np

from tumortwin.models import ReactionDiffusion
from tumortwin.treatments import Schedule


class Euler:
    """Problem R by explicit Euler at the largest stable step; fractions at their steps, the drug's kill integrated."""

    def __init__(self, model: ReactionDiffusion, schedule: Schedule, day: float) -> None:
        domain = model.tissue.domain
        diffusivity = float(model.diffusion.white_matter)
        d = np.asarray(model.diffusion.relative_diffusivity(model.tissue)) * diffusivity
        bound = 2.0 * diffusivity * sum(1.0 / h**2 for h in domain.grid.spacing)
        self.n_steps = math.ceil(day * bound / 0.95)
        self.step = day / self.n_steps
        self.start = np.asarray(model.initial.state(model.tissue).density)
        self.rate = np.float32(self.step * float(model.proliferation.rate))
        self.faces = []
        for axis, h in enumerate(domain.grid.spacing):
            left, right = _sides(axis)
            total = d[left] + d[right]
            mean = np.divide(2 * d[left] * d[right], total, out=np.zeros_like(total), where=total > 0)
            self.faces.append((mean * self.step / h**2).astype(np.float32))
        edges = np.arange(self.n_steps + 1) * self.step
        total = np.asarray(model.log_kill(schedule, 0.0, day).cumulative(jnp.asarray(edges)))
        self.kills = np.exp(-np.diff(total)).astype(np.float32)

    def run(self, n_steps: int | None = None) -> np.ndarray:
        """The density after `n_steps` (all of them when not given)."""
        u = self.start.copy()
        change, flux = np.empty_like(u), [np.empty_like(f) for f in self.faces]
        for kill in self.kills[:n_steps]:
            np.subtract(1, u, out=change)
            change *= u
            change *= self.rate
            for axis, (face, f) in enumerate(zip(self.faces, flux, strict=True)):
                left, right = _sides(axis)
                np.subtract(u[right], u[left], out=f)
                f *= face
                change[left] += f
                change[right] -= f
            u += change
            if kill < 1:
                u *= kill
        return u


def _sides(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    left, right = [slice(None)] * 3, [slice(None)] * 3
    left[axis], right[axis] = slice(0, -1), slice(1, None)
    return tuple(left), tuple(right)
