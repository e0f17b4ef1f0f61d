"""What a run is told apart by: the patient's files, the atlas, the experiment and those it imports."""

import pytest

from tumortwin import cli_jobs
from tumortwin._errors import InputError
from tumortwin.cli_patient import data_files
from tumortwin.config import compose
from tumortwin.io import atlas_files, write_example_patient

ATLAS = "sub-mni152_tissue-with-antsN4_space-sri.nii.gz"


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"scan")
    return path


def test_a_public_patient_is_its_scans_and_its_atlas(tmp_path):
    scan, other = touch(tmp_path / "tcga_lgg_static" / "a_mav.nii.gz"), touch(tmp_path / "other" / "b.nii.gz")
    config = compose(["patient=tcga_lgg", f"data.root={tmp_path}"]).config
    with pytest.raises(InputError, match="brain_atlas"):
        data_files(config)
    atlas = touch(tmp_path / "brain_atlas" / ATLAS)
    assert data_files(config) == [scan, atlas] and other not in data_files(config)
    inside = compose(["patient=tcga_lgg", f"data.root={scan.parent}"]).config  # the root is the folder itself
    assert [f.name for f in data_files(inside)] == [scan.name, ATLAS]
    progression = touch(tmp_path / "gbm_brain_tumor_progression" / "p01_Pre_Mask.nii.gz")
    config = compose(["patient=gbm_progression", f"data.root={tmp_path}"]).config
    assert data_files(config) == [progression]


def test_a_virtual_patient_is_the_anatomy_it_grows_in():
    assert data_files(compose(["patient=atlas_glioma"]).config) == atlas_files()
    assert len(atlas_files()) == 3 and all(f.is_file() for f in atlas_files())


def test_an_own_folder_is_never_looked_for_among_public_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_example_patient(tmp_path / "mine")
    config = compose(["patient=folder", "patient.path=mine", "data.root=nowhere"]).config
    names = [f.name for f in data_files(config)]
    assert "patient.yaml" in names and "day0_flair.nii.gz" in names
    mistyped = compose(["patient=folder", "patient.path=mien", "data.root=nowhere"]).config
    assert data_files(mistyped) == atlas_files()


def test_an_experiment_is_its_files_and_those_of_what_it_imports(tmp_path, monkeypatch):
    monkeypatch.setattr(cli_jobs, "repository", lambda: tmp_path)
    folder = tmp_path / "experiments"
    texts = {
        "first/run.py": "from experiments.second.study import one\n",
        "second/study.py": "def f():\n    import experiments.third.cases\n    from experiments.first import run\n",
        "second/run.py": "",
        "third/cases.py": "",
        "fourth/run.py": "",
    }
    for name, text in texts.items():
        touch(folder / name).write_text(text)
    found = {f.relative_to(folder).as_posix() for f in cli_jobs.experiment_files("first")}
    assert found == set(texts) - {"fourth/run.py"}


def test_a_changed_scan_is_another_reproduction(tmp_path, monkeypatch):
    scan = touch(tmp_path / "tcga_lgg_static" / "a_mav.nii.gz")
    touch(tmp_path / "brain_atlas" / ATLAS)
    line = ["task=reproduce", "task.experiment=glioma_tcga", "experiment=glioma_tcga", f"data.root={tmp_path}"]
    _, files = cli_jobs._body(compose(line).config)
    assert scan in files and any(f.name == "run.py" and f.parent.name == "glioma_tcga" for f in files)
    line = ["task=reproduce", "task.experiment=glioma_progression", "experiment=glioma_progression"]
    progression = touch(tmp_path / "gbm_brain_tumor_progression" / "p01_Pre_Mask.nii.gz")
    _, files = cli_jobs._body(compose([*line, f"data.root={tmp_path}"]).config)
    assert progression in files and any(f.name == "study.py" and f.parent.name == "glioma_atlas" for f in files)
