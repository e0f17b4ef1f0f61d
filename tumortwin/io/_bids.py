"""Names of a BIDS-derivative data set: `sub-01_ses-D090_space-T1w_desc-forecast_stat-mean_map.nii.gz`."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tumortwin import __version__
from tumortwin._files import write_text

BIDS_VERSION = "1.10.0"
# The order in which BIDS lists the entities that we use; `stat` is ours, as is the suffix `map` with a `desc`.
ENTITIES = ("sub", "ses", "space", "res", "label", "desc", "stat")
SUFFIXES = ("mask", "dseg", "probseg", "map", "T1w", "FLAIR")
README = """Derivatives of tumortwin. Research software, not a medical device.

Volumes are float32 NIfTI in the space and with the affine of the patient's own images.
Beyond BIDS (see .bidsignore): the suffix `map` with a free `desc-`, and the entity `stat-` (mean, std, ptumor).
desc-forecastD090 means day 90 after the first visit. ptumor is the probability that the tumor is visible there.
"""


def bids_name(entities: Mapping[str, str], suffix: str, extension: str = ".nii.gz") -> str:
    """The path of a file inside the data set: `sub-<>/[ses-<>/]anat/<entities>_<suffix><extension>`.

    Labels lose everything but letters and digits, as BIDS demands. **Raises:** `ValueError` for an unknown entity or
    suffix, a missing `sub` or a label that is empty after that.
    """
    unknown = [key for key in entities if key not in ENTITIES]
    if unknown or "sub" not in entities or suffix not in SUFFIXES:
        raise ValueError(
            f"required: sub, entities of {ENTITIES}, a suffix of {SUFFIXES}; received: {entities}, {suffix}"
        )
    labels = {key: re.sub(r"[^A-Za-z0-9]", "", entities[key]) for key in ENTITIES if key in entities}
    if not all(labels.values()):
        raise ValueError(f"required: letters or digits in every label; received: {dict(entities)}")
    pairs = [f"{key}-{label}" for key, label in labels.items()]
    folders = [pair for pair in pairs if pair.startswith(("sub-", "ses-"))]
    return "/".join([*folders, "anat", "_".join([*pairs, suffix]) + extension])


def write_dataset_description(
    root: str | os.PathLike[str], *, name: str = "tumortwin derivatives", sources: Sequence[str] = ()
) -> Path:
    """Write dataset_description.json, README and .bidsignore of a derivative data set; returns its folder."""
    folder = Path(root)
    description: dict[str, Any] = {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "tumortwin", "Version": __version__}],
        "SourceDatasets": [{"URL": source} for source in sources],
    }
    write_text(folder / "dataset_description.json", json.dumps(description, indent=2) + "\n")
    write_text(folder / "README", README)
    write_text(folder / ".bidsignore", "*_map.nii.gz\n*_stat-*\n")
    return folder
