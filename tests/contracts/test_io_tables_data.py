"""The public tables where they are on disk: the counts and numbers that their descriptions give."""

import functools
from pathlib import Path

import numpy as np
import pytest

from tumortwin._errors import InputError
from tumortwin.io import Table, find_data_root, load_table, table_layout, table_layouts

COUNTS = {  # layout -> subjects, readings of the first quantity, its unit
    "abiraterone": (32, 678, "ng/mL"),
    "benzekry_breast": (33, 289, "mm^3"),
    "benzekry_llc_173": (20, 173, "mm^3"),
    "benzekry_lung": (20, 188, "mm^3"),
    "bruchovsky": (72, 3419, "ng/mL"),
    "cart_dex_glioma": (48, 7824, "1"),
    "delobel": (5, 61, "mm^3"),
    "glioma_rt_invitro_9L": (353, 27958, "1"),
    "laleh": (1042, 6029, "mm"),
    "maeve_gdc0084_temozolomide": (81, 1389, "mm^3"),
}
OUTLIER = "7580adab"  # the patient whose lesion is the largest of the data set
pytestmark = pytest.mark.data


@functools.cache
def load(name: str) -> Table:
    layout = table_layout(name)
    try:
        root = find_data_root(None)
    except InputError as error:
        pytest.skip(f"no public data: {error.received}")
    if not (root / layout.folder / layout.file).is_file():
        pytest.skip(f"no public data: {layout.folder}/{layout.file} is absent")
    return load_table(layout, root)


def test_every_layout_is_counted() -> None:
    assert set(COUNTS) == set(table_layouts())


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_the_published_ones(name: str) -> None:
    table = load(name)
    padded = table.padded()
    assert (len(table.subjects), int(padded.valid.sum()), padded.unit) == COUNTS[name]
    for quantity in table.quantities:
        p = table.padded(quantity)
        assert np.isfinite(p.values).all() and (np.diff(p.times, axis=1) >= 0).all()
        assert (p.lower <= p.upper).all() and ((p.lower <= p.values) & (p.values <= p.upper))[p.valid].all()


def test_persistence_forecasts_lesions_as_well_as_known() -> None:
    """Mean absolute error of `Lesion_normvol`, last 2 of 6 readings or more held out: .00293 (466 patients), .00241."""
    six = load("laleh").with_at_least(6)
    assert len(six.subjects) == 466
    known, held = (part.padded("relative_volume") for part in six.split_last(2, "relative_volume"))
    last = known.values[np.arange(466), known.counts - 1]
    error = np.abs(held.values - last[:, None])
    usual = np.array([not name.startswith(OUTLIER) for name in six.subjects])
    assert held.valid.all() and usual.sum() == 465
    assert error.mean() == pytest.approx(0.00293, abs=5e-6)
    assert error[usual].mean() == pytest.approx(0.00241, abs=5e-6)


def test_lesions_that_are_gone_are_intervals() -> None:
    table = load("laleh")
    diameter, volume = table.padded(), table.padded("volume")
    gone = diameter.valid & (diameter.values == 0)
    assert gone.sum() == 299  # 300 rows of 0, one of them twice
    assert (diameter.lower[gone] == 0).all() and (diameter.upper[gone] == 5).all()
    rest = diameter.valid & ~gone
    np.testing.assert_allclose((diameter.upper - diameter.lower)[rest & (diameter.values >= 0.5)], 1.0)
    np.testing.assert_allclose(volume.values[rest], 0.52 * diameter.values[rest] ** 3, rtol=1e-3, atol=0.01)
    assert any("4 rows that repeat" in note for note in table.notes)
    assert any("not in time order" in note for note in table.notes)


def test_androgen_deprivation_has_cycles_and_outcomes() -> None:
    table = load("bruchovsky")
    outcomes = dict(zip(*np.unique(table.covariates["outcome"], return_counts=True), strict=True))
    assert outcomes == {"no_relapse": 55, "relapse": 12, "metastasis_no_relapse": 5}
    on = table.doses["on_treatment"]
    assert {float(v) for levels in on.levels for v in levels} == {0.0, 1.0}
    psa = table.padded()
    assert psa.censored.sum() == 1 and psa.counts.min() == 25


def test_abiraterone_is_on_for_about_half_the_time() -> None:
    table = load("abiraterone")
    assert len(table.where(cohort="Adaptive").subjects) == 17 and len(table.where(cohort="SOC").subjects) == 15
    relative = table.padded("relative_psa")
    other = np.array(relative.subjects)[relative.values.max(axis=1) != 1.0]
    assert list(other) == ["P1002"]  # the largest value of this patient is not in the file
    adaptive = table.where(cohort="Adaptive")
    times = adaptive.padded().times
    shares = []
    for s in range(len(adaptive.subjects)):
        days = np.arange(times[s, 0], times[s, -1], 1.0)
        shares.append(adaptive.doses["abiraterone"].at(s, days).mean())
    assert np.mean(shares) == pytest.approx(0.483, abs=0.02)


def test_curves_of_irradiated_cells_are_split_as_the_authors_did() -> None:
    table = load("glioma_rt_invitro_9L")
    assert len(table.where(split="training").subjects) == 262 and len(table.where(split="validation").subjects) == 91
    schedules = set(zip(table.covariates["fraction_dose"], table.covariates["fractions"], strict=True))
    assert schedules == {(4.0, 4.0), (5.3, 3.0), (8.0, 2.0), (5.0, 4.0), (6.7, 3.0), (10.0, 2.0)}
    assert table.padded().times.max() == pytest.approx(348 / 24)


def test_low_grade_gliomas_come_with_their_courses() -> None:
    table = load("delobel")
    assert list(table.counts()) == [12, 14, 13, 8, 14]
    assert table.padded().values[0, 0] == pytest.approx(39563.0)
    np.testing.assert_array_equal(table.doses["temozolomide"].edges[0], [1225, 1349, 1913, 1974])
    np.testing.assert_array_equal(table.doses["radiotherapy"].edges[0], [2050, 2080])
    assert [len(e) for e in table.doses["radiotherapy"].edges] == [2, 0, 0, 0, 0]
    assert table.covariates["surgery_day"][0] == -69


def test_conditions_of_the_cell_index_are_all_there() -> None:
    table = load("cart_dex_glioma")
    columns = (table.covariates[name] for name in ("line", "dexamethasone", "car_t_cells"))
    conditions = set(zip(*columns, strict=True))
    assert len(conditions) == 48 and table.padded().values.min() < 0
    assert table.padded().times.max() * 24 == pytest.approx(163.732222)


def test_another_folder_with_fewer_animals_reads_too(tmp_path: Path) -> None:
    table = load("benzekry_lung")
    lines = table.source.read_text().splitlines()
    kept = [line for line in lines if line.split(",")[0] in ("ID", "3", "7")]
    (tmp_path / "lung_vol_data.csv").write_text("\n".join(kept))
    few = load_table("benzekry_lung", tmp_path)
    assert few.subjects == ("3", "7")
    np.testing.assert_array_equal(few.padded().values, table.select(["3", "7"]).padded().values)
