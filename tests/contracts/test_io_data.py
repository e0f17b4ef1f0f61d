"""The public data where it is on disk: the numbers that its files are known for, and the registry's checksums."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tumortwin._errors import InputError
from tumortwin.io import find_data_root, load_gbm_progression, load_tcga_lgg

REGISTRY = Path(__file__).resolve().parents[2] / "data" / "registry.yaml"


def data_root(folder: str) -> Path:
    try:
        root = find_data_root(None)
    except InputError as error:
        pytest.skip(f"no public data: {error.received}")
    if not (root / folder).is_dir():
        pytest.skip(f"no public data: {folder} is absent")
    return root


def registry() -> dict[str, Any]:
    return yaml.safe_load(REGISTRY.read_text())


def test_every_source_is_named_licensed_cited_and_hashed() -> None:
    for name, entry in registry().items():
        for key in ("title", "source", "licence", "citation", "used_by"):
            assert entry[key], f"{name}: {key}"
        assert entry["commit"] is None or len(entry["commit"]) == 40, name
        for file in entry["files"]:
            assert len(file["sha256"]) == 64, name
            assert file["path"] is None or file["path"].startswith(f"{entry.get('folder', name)}/"), name


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in registry() if name != "icbm152"])
def test_the_files_are_the_registered_ones(name: str) -> None:
    root = data_root(registry()[name].get("folder", name))
    for file in registry()[name]["files"]:
        digest = hashlib.sha256((root / file["path"]).read_bytes()).hexdigest()
        assert digest == file["sha256"], file["path"]


@pytest.mark.data
def test_tcga_overlaps_the_atlas_through_the_affines_only() -> None:
    data_root("brain_atlas")
    patient = load_tcga_lgg(data_root("tcga_lgg_static"), "TCGA-DU-7294")
    facts = patient.facts
    assert facts["dice_brain_by_affine"] == pytest.approx(0.868, abs=5e-4)
    assert facts["dice_brain_by_voxel_index"] == pytest.approx(0.638, abs=5e-4)
    masks = patient.scans[0].masks
    assert int(masks["t1gd"].sum()) == 9281
    assert int(masks["flair"].sum()) == 9281 + 14907
    assert facts["label_4_voxels"] == 0
    assert facts["tumor_share_outside_tissue"] == pytest.approx(0.08, abs=0.005)
    assert patient.anatomy.min() < 0
    assert patient.domain[masks["flair"]].all() and not (patient.domain & ~patient.brain).any()
    np.testing.assert_allclose(sum(patient.tissue.values()), patient.domain, atol=1e-6)


@pytest.mark.data
@pytest.mark.parametrize(("id", "interval", "persistence"), [("p01", 157.0, 0.564), ("p05", 55.0, 0.413)])
def test_progression_is_registered_as_known(id: str, interval: float, persistence: float) -> None:
    patient = load_gbm_progression(data_root("gbm_brain_tumor_progression"), id, interval)
    facts = patient.facts
    print(id, {name: round(value, 4) for name, value in facts.items()})
    assert facts["dice_persistence"] == pytest.approx(persistence, abs=0.02)
    assert facts["registration_correlation_after"] > facts["registration_correlation_before"] + 0.05
    assert facts["registration_disagreement_mm"] < 0.5
    assert patient.scans[1].day == interval
    assert patient.grid.spacing == (0.9375, 0.9375, 6.5)
    assert patient.domain[patient.scans[0].masks["t1gd"]].all()
