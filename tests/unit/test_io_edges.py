"""Names of derivatives, data folders, atomic paths, and what importing io must not import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tumortwin._errors import InputError
from tumortwin.io import (
    atomic_path,
    bids_name,
    find_data_root,
    write_dataset_description,
)


def test_bids_names_are_in_order_and_clean() -> None:
    entities = {"stat": "mean", "desc": "forecast-D090", "sub": "p_01", "space": "T1w"}
    assert bids_name(entities, "map") == "sub-p01/anat/sub-p01_space-T1w_desc-forecastD090_stat-mean_map.nii.gz"
    with_session = {"sub": "01", "ses": "02", "desc": "tumor"}
    assert bids_name(with_session, "mask") == "sub-01/ses-02/anat/sub-01_ses-02_desc-tumor_mask.nii.gz"


@pytest.mark.parametrize(
    ("entities", "suffix"),
    [({"ses": "1"}, "map"), ({"sub": "1", "foo": "2"}, "map"), ({"sub": "1"}, "bold"), ({"sub": "../"}, "map")],
)
def test_names_that_bids_does_not_know_are_refused(entities: dict[str, str], suffix: str) -> None:
    with pytest.raises(ValueError, match="required"):
        bids_name(entities, suffix)


def test_a_derivative_data_set_describes_itself(tmp_path: Path) -> None:
    folder = write_dataset_description(tmp_path / "derivatives", sources=("doi:10.1/x",))
    description = json.loads((folder / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "tumortwin"
    assert description["SourceDatasets"] == [{"URL": "doi:10.1/x"}]
    assert "*_map.nii.gz" in (folder / ".bidsignore").read_text()
    assert "not a medical device" in (folder / "README").read_text()


def test_data_root_prefers_the_configured_folder_then_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    b.mkdir()
    monkeypatch.setenv("TUMORTWIN_DATA", str(b))
    assert find_data_root(str(a)) == a.resolve()
    assert find_data_root(None) == b.resolve()
    monkeypatch.setenv("TUMORTWIN_DATA", str(tmp_path / "none"))
    with pytest.raises(InputError, match="TUMORTWIN_DATA"):
        find_data_root(None)


def test_a_missing_data_folder_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        find_data_root(str(tmp_path / "none"))
    for word in (str(tmp_path / "none"), "data.root", "data/registry.yaml", "data/README.md", "TUMORTWIN_DATA"):
        assert word in str(caught.value)


def test_an_atomic_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "store"
    for content in ("one", "two"):
        with atomic_path(target) as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [p.name for p in target.iterdir()] == ["two"]
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.mkdir()
        raise RuntimeError
    assert [p.name for p in target.iterdir()] == ["two"]
    assert list(tmp_path.iterdir()) == [target]


def test_importing_io_imports_no_file_library() -> None:
    heavy = ("nibabel", "xarray", "zarr", "SimpleITK", "nilearn", "yaml", "pandas", "pandera", "pooch")
    code = f"import sys, tumortwin.io; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
