"""What a plan costs the normal tissue: BED, EQD2, and complication probability (LKB) with cited constants."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tumortwin import units
from tumortwin._types import ScalarLike
from tumortwin.treatments import biologically_effective_dose, equivalent_dose_2gy

NORMAL_TISSUE_ALPHA_BETA = 3.0
"""alpha/beta [Gy] of late-responding normal tissue. Convention; Fowler, Br J Radiol 62 (1989)."""

TUMOR_ALPHA_BETA = 10.0
"""alpha/beta [Gy] of the BED_10 in a report. Convention for high-grade glioma; Qi et al. 2006 give 10 +- 15 Gy."""

BURMAN = "Burman et al., Int J Radiat Oncol Biol Phys 21 (1991); recalled, check against the source before clinical use"


class Toxicity(eqx.Module):
    """Dose summary of a course: total, BED and EQD2 of late-responding tissue, BED_10 of tumor, largest fraction."""

    total_dose: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.DOSE})
    effective_dose_normal: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.DOSE})
    equivalent_dose_normal: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.DOSE})
    effective_dose_tumor: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.DOSE})
    largest_fraction: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.DOSE})

    def describe(self) -> dict[str, float]:
        """The numbers by the names used in a plan file."""
        return {
            "total_dose_gy": float(self.total_dose),
            "bed_3_gy": float(self.effective_dose_normal),
            "eqd2_3_gy": float(self.equivalent_dose_normal),
            "bed_10_gy": float(self.effective_dose_tumor),
            "max_fraction_dose_gy": float(self.largest_fraction),
        }


def toxicity(doses: Float[Array, " fraction"]) -> Toxicity:
    """The dose summary of fractions `doses` [Gy]. 30 x 2 Gy: 60, BED_3 100, EQD2 60, BED_10 72, largest 2 Gy."""
    return Toxicity(
        total_dose=jnp.sum(doses),
        effective_dose_normal=biologically_effective_dose(doses, NORMAL_TISSUE_ALPHA_BETA),
        equivalent_dose_normal=equivalent_dose_2gy(doses, NORMAL_TISSUE_ALPHA_BETA),
        effective_dose_tumor=biologically_effective_dose(doses, TUMOR_ALPHA_BETA),
        largest_fraction=jnp.max(doses),
    )


class OrganTolerance(eqx.Module):
    """Lyman-Kutcher-Burman constants of an organ: `td50` [Gy in 2 Gy fractions], slope `m`, volume exponent `n`."""

    name: str = eqx.field(static=True)
    td50: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.DOSE})
    m: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.FRACTION})
    n: Float[Array, ""] = eqx.field(converter=jnp.asarray, metadata={"unit": units.FRACTION})
    endpoint: str = eqx.field(static=True)
    citation: str = eqx.field(static=True)


def organ_tolerances() -> dict[str, OrganTolerance]:
    """LKB constants by organ, each with its endpoint and citation."""
    table = (
        ("brain", 60.0, 0.15, 0.25, "necrosis, infarction"),
        ("brainstem", 65.0, 0.14, 0.16, "necrosis, infarction"),
        ("optic_nerve", 65.0, 0.14, 0.25, "blindness"),
        ("spinal_cord", 66.5, 0.175, 0.05, "myelitis, necrosis"),
        ("liver", 40.0, 0.15, 0.32, "liver failure"),
        ("kidney", 28.0, 0.10, 0.70, "clinical nephritis"),
        ("heart", 48.0, 0.10, 0.35, "pericarditis"),
        ("lung", 30.8, 0.37, 1.0, "pneumonitis"),
    )
    quantec = "Marks et al., Int J Radiat Oncol Biol Phys 76 (2010); recalled, check against the source"
    return {
        name: OrganTolerance(name, td50, m, n, endpoint, quantec if name == "lung" else BURMAN)
        for name, td50, m, n, endpoint in table
    }


def generalized_equivalent_dose(
    doses: Float[Array, " bin"], volumes: Float[Array, " bin"], n: ScalarLike
) -> Float[Array, ""]:
    """gEUD [Gy] of a dose-volume histogram, (sum_i v_i D_i^(1/n))^n with v_i the volume fractions.

    n = 1 is the mean dose, n -> 0 the largest. `volumes` in any unit; `doses` [Gy], best as EQD2 voxel by voxel.
    """
    share = volumes / jnp.sum(volumes)
    largest = jnp.max(doses)
    scale = jnp.where(largest > 0.0, largest, 1.0)  # keeps D^(1/n) within range for small n
    positive = doses > 0.0
    power = jnp.where(positive, jnp.where(positive, doses / scale, 1.0) ** (1.0 / n), 0.0)
    total = jnp.sum(share * power)
    return jnp.where(total > 0.0, scale * jnp.where(total > 0.0, total, 1.0) ** n, 0.0)


def complication_probability(dose: ScalarLike, organ: OrganTolerance) -> Float[Array, ""]:
    """LKB normal tissue complication probability, Phi((gEUD - TD50) / (m TD50)), for a gEUD `dose` [Gy].

    One half at TD50; .13326 at 50 Gy for TD50 60 Gy, m .15.

    **Reference:** Lyman, Radiat Res 104 (1985); Kutcher and Burman, Int J Radiat Oncol Biol Phys 16 (1989).
    """
    return jax.scipy.stats.norm.cdf((jnp.asarray(dose) - organ.td50) / (organ.m * organ.td50))
