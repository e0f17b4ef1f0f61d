"""Animals of a two-drug grid: arms, volumes with what the caliper's floor hides, the worst loss of weight."""

import dataclasses
import re

import jax.numpy as jnp
import numpy as np

from tumortwin._errors import InputError
from tumortwin.inference import Measurements
from tumortwin.io import Table

GROUP = re.compile(r"(?P<first>[a-z0-9]+)_(?P<first_dose>[\d.]+)_(?P<second>[a-z0-9]+)_(?P<second_dose>[\d.]+)")
DENSITY = 1e-3  # [g/mm^3] of tumor; that of water
TOLERABILITY_DAYS = 28.0  # the worst loss of weight is looked for so long; the day of the plan's objective
ENDED_EARLY = 500.0  # [mm^3]: a record that ends before that day with a smaller tumor did not end because of it
NEAR = 7.0  # [day]: a floor is looked for among readings so near


@dataclasses.dataclass(frozen=True, eq=False)
class Animals:
    """Every animal: `dose` [animal, 2] in mg/kg; `arm` [animal], index into `arms`; padded readings [animal, time]
    after the first, `first` [animal] being the volume [mm^3] on day 0; `loss_lower`, `loss_upper`, `loss` [animal] of
    the worst relative loss of weight net of tumor weight to `TOLERABILITY_DAYS`."""

    names: tuple[str, ...]
    drugs: tuple[str, str]
    dose: np.ndarray
    arm: np.ndarray
    arms: tuple[tuple[float, float], ...]
    first: np.ndarray
    days: np.ndarray
    volume: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    valid: np.ndarray
    loss: np.ndarray
    loss_lower: np.ndarray
    loss_upper: np.ndarray

    @property
    def levels(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Doses above 0 of the two drugs."""
        first, second = (tuple(sorted({float(d) for d in column if d > 0})) for column in self.dose.T)
        return first, second

    @property
    def combinations(self) -> tuple[int, ...]:
        """The arms that got both drugs."""
        return tuple(k for k, arm in enumerate(self.arms) if min(arm) > 0)

    def label(self, arm: int) -> str:
        """Words for an arm."""
        a, b = self.arms[arm]
        return f"{self.drugs[0]}_{a:g}_{self.drugs[1]}_{b:g}"

    def volumes(self, hidden: int | None = None) -> Measurements:
        """The readings after the first; those of the `hidden` arm are not there."""
        valid = self.valid if hidden is None else self.valid & (self.arm != hidden)[:, None]
        return Measurements(
            jnp.asarray(self.days),
            jnp.asarray(self.lower),
            jnp.asarray(self.upper),
            jnp.asarray(valid, float),
            given={"start": jnp.asarray(self.first), "dose": jnp.asarray(self.dose)},
        )

    def weights(self) -> Measurements:
        """The worst loss of every animal as its only measurement."""
        column = np.zeros((len(self.names), 1))
        return Measurements(
            jnp.asarray(column + TOLERABILITY_DAYS),
            jnp.asarray(self.loss_lower[:, None]),
            jnp.asarray(self.loss_upper[:, None]),
            jnp.asarray(column + 1.0),
            given={"dose": jnp.asarray(self.dose)},
        )

    def floor(self, day: float, hidden: int) -> float:
        """What is written of a tumor too small to measure about `day`: the commonest such entry of the other arms."""
        near = self.valid & (self.arm != hidden)[:, None] & (np.abs(self.days - day) <= NEAR)
        entries = self.upper[near & (self.lower < self.upper)]
        if entries.size == 0:
            return 0.0
        values, counts = np.unique(entries, return_counts=True)
        return float(values[np.argmax(counts)])


def animals_of(table: Table) -> Animals:
    """The animals that have a volume on their first day and one later.

    **Raises:** `InputError` for a group that names no two doses, or a table without an animal.
    """
    rows, weights = table.padded("volume"), table.padded("body_weight")
    kept = [i for i in range(len(table.subjects)) if rows.counts[i] > 1]
    if not kept:
        raise InputError(
            file=table.source, required="an animal with two volumes", received="none", advice="longer records"
        )
    found = [_doses(str(table.covariates["group"][i]), table) for i in kept]
    dose = np.array([[a, b] for _, _, a, b in found])
    arms = tuple(sorted({(float(a), float(b)) for a, b in dose}))
    arm = np.array([arms.index((float(a), float(b))) for a, b in dose])
    losses = np.array([_worst_loss(rows, weights, i) for i in kept])
    later = {k: np.asarray(getattr(rows, k))[kept, 1:] for k in ("times", "values", "lower", "upper", "valid")}
    return Animals(
        tuple(table.subjects[i] for i in kept),
        (found[0][0], found[0][1]),
        dose,
        arm,
        arms,
        np.asarray(rows.values)[kept, 0],
        later["times"],
        later["values"],
        later["lower"],
        later["upper"],
        later["valid"],
        *losses.T,
    )


def _doses(group: str, table: Table) -> tuple[str, str, float, float]:
    found = GROUP.fullmatch(group)
    if found is None:
        raise InputError(
            file=table.source,
            required="groups such as gdc0084_10_temo_40",
            received=repr(group),
            advice="name two drugs and two doses",
        )
    return found["first"], found["second"], float(found["first_dose"]), float(found["second_dose"])


def _worst_loss(volumes, weights, i: int) -> tuple[float, float, float]:  # noqa: ANN001
    """`(loss, lower, upper)`: of an animal that lost nothing the interval is open below, of one whose record ends
    early with a small tumor (it died, or was killed for another reason) open above."""
    own, tumor = weights.valid[i], volumes.valid[i]
    days, grams = weights.times[i][own], weights.values[i][own]
    net = grams - DENSITY * np.interp(days, volumes.times[i][tumor], volumes.values[i][tumor])
    loss = 1.0 - net[(days > days[0]) & (days <= TOLERABILITY_DAYS)] / net[0]
    worst = max(float(loss.max(initial=0.0)), 0.0)
    early = days[-1] < TOLERABILITY_DAYS and volumes.values[i][tumor][-1] < ENDED_EARLY
    return worst, -np.inf if worst == 0.0 else worst, np.inf if early else worst
