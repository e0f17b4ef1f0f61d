"""How far a tumor reaches beyond what a scan shows, in a sentence."""

from typing import Any

import numpy as np

from tumortwin.cli_patient import Case
from tumortwin.twin import ModelFrame

FAINT = 0.01
"""A density below every imaging threshold, above the dust of a diffusion equation."""


def beyond_the_edge(case: Case, frame: ModelFrame, found: Any) -> str:
    """Tumor mass and reach of the expected density outside the widest outline of the last known scan; empty when that
    scan has no outline, or its day no map.

    **Arguments:** `found`: a forecast as `read_forecast` gives it.
    """
    days, _, maps, _ = found
    scan = case.known.scans[-1]
    outline = scan.outline
    if outline is None or not outline.any() or scan.day not in days or "map_mean" not in maps:
        return ""
    density = np.asarray(maps["map_mean"][int(np.flatnonzero(days == scan.day)[0])], float)
    outside = 1.0 - frame.coarse(outline.astype(np.float32))
    voxel = frame.grid.cell_volume / 1000.0  # [mL]
    mass, beyond = float(density.sum()) * voxel, float((density * outside).sum()) * voxel
    faint = (density > FAINT) * outside
    reach = float(np.max(frame.distance(outline)[faint > 0.5], initial=0.0))
    return (
        f"On day {scan.day:g} some {beyond:.2g} of {mass:.3g} mL of tumor mass are expected beyond the widest outline "
        f"({100.0 * beyond / mass:.0f} %); the expected density exceeds {100.0 * FAINT:g} % in "
        f"{float(faint.sum()) * voxel:.2g} mL there, up to {reach:.0f} mm from the edge. This is the model's tail, "
        "which no image shows."
    )
