"""Long-format tables: what is promised of a column, what a mistake says, and what comes out in which unit."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tumortwin._errors import InputError
from tumortwin.config import compose, config_dir
from tumortwin.io import (
    Covariate,
    Dose,
    Quantity,
    Recorded,
    Table,
    TableSchema,
    layout_from,
    load_table,
    read_courses,
    read_table,
    schema_from,
    table_layout,
    table_layouts,
)

PLAIN = TableSchema(("id",), "t", "day", {"size": Quantity("v", "mm")})
CLINIC = """id,week,mm,psa,dose,arm,age
a,0,12,4.1,50,one,61
a,3,too small,<0.1,0,one,61
b,0,31,,50,two,58
b,1,30,2,50,two,58
b,2,0,3,25,two,58
"""
CLINIC_SCHEMA = TableSchema(
    subject=("id",),
    time="week",
    time_unit="week",
    quantities={
        "diameter": Quantity("mm", "mm", rounding=1.0, recorded=(Recorded("too small", 0, 5), Recorded(0.0, 0.0, 5.0))),
        "psa": Quantity("psa", "ug/mL", missing=("",), less_than=True),
    },
    doses={"drug": Dose("dose", "mg")},
    covariates={"arm": Covariate("arm"), "age": Covariate("age", "year")},
)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def _write(text: str, name: str = "t.csv", encoding: str = "utf-8") -> Path:
        (tmp_path / name).write_bytes(text.encode(encoding))
        return tmp_path / name

    return _write


@pytest.fixture
def clinic(write: Callable[..., Path]) -> Table:
    return read_table(write(CLINIC), CLINIC_SCHEMA)


def rows(*lines: str) -> str:
    return "\n".join(["id,t,v", *lines]) + "\n"


def test_units_become_canonical(clinic: Table) -> None:
    diameter, psa = clinic.padded("diameter"), clinic.padded("psa")
    assert (diameter.unit, psa.unit, clinic.doses["drug"].unit) == ("mm", "ng/mL", "mg")
    np.testing.assert_array_equal(diameter.times, [[0, 21, 21], [0, 7, 14]])
    np.testing.assert_allclose(psa.values, [[4100, 100], [2000, 3000]])
    np.testing.assert_allclose(clinic.covariates["age"], [61 * 365.25, 58 * 365.25])
    assert list(clinic.covariates["arm"]) == ["one", "two"]


@pytest.mark.parametrize(
    ("unit", "canonical", "factor"),
    [("cm", "mm", 10), ("cm^3", "mm^3", 1000), ("mL", "mm^3", 1000), ("ng/mL", "ng/mL", 1), ("%", "1", 0.01)],
)
@pytest.mark.parametrize(("time", "days"), [("hour", 1 / 24), ("week", 7), ("month", 30.4375), ("day", 1)])
def test_factors_of_units(
    write: Callable[..., Path], unit: str, canonical: str, factor: float, time: str, days: float
) -> None:
    schema = TableSchema(("id",), "t", time, {"x": Quantity("v", unit, rounding=1.0, limit=2.0)})
    padded = read_table(write(rows("a,-2,1", "a,3,8")), schema).padded()
    assert padded.unit == canonical
    np.testing.assert_allclose(padded.times, [[-2 * days, 3 * days]])
    np.testing.assert_allclose(padded.values, [[factor, 8 * factor]])
    np.testing.assert_allclose(padded.lower, [[0, 7.5 * factor]])
    np.testing.assert_allclose(padded.upper, [[2 * factor, 8.5 * factor]])


def test_readings_that_are_intervals(clinic: Table) -> None:
    d = clinic.padded("diameter")
    np.testing.assert_array_equal(d.valid, [[True, True, False], [True, True, True]])
    np.testing.assert_allclose(d.values[d.valid], [12, 2.5, 31, 30, 0])
    np.testing.assert_allclose(d.lower[d.valid], [11.5, 0, 30.5, 29.5, 0])
    np.testing.assert_allclose(d.upper[d.valid], [12.5, 5, 31.5, 30.5, 5])
    psa = clinic.padded("psa")
    np.testing.assert_allclose(psa.lower, [[4100, 0], [2000, 3000]])
    np.testing.assert_allclose(psa.upper, [[4100, 100], [2000, 3000]])
    np.testing.assert_array_equal(psa.censored, [[False, True], [False, False]])


def test_a_limit_column_and_a_limit(write: Callable[..., Path]) -> None:
    path = write("id,t,v,u\na,0,5,0\na,1,2,1\na,2,0.5,0\n")
    schema = TableSchema(("id",), "t", "day", {"x": Quantity("v", "1", limit=1.0, limit_column="u")})
    padded = read_table(path, schema).padded()
    np.testing.assert_allclose(padded.lower, [[5, 0, 0]])
    np.testing.assert_allclose(padded.upper, [[5, 2, 1]])


def test_rounding_never_reaches_below_the_minimum_and_may_where_there_is_none(write: Callable[..., Path]) -> None:
    path = write(rows("a,0,0.2"))
    bounded = TableSchema(("id",), "t", "day", {"x": Quantity("v", "1", rounding=1.0)})
    free = TableSchema(("id",), "t", "day", {"x": Quantity("v", "1", rounding=1.0, minimum=None)})
    assert read_table(path, bounded).padded().lower[0, 0] == 0
    assert read_table(path, free).padded().lower[0, 0] == pytest.approx(-0.3)


def test_doses_hold_from_their_row_on(clinic: Table) -> None:
    edges, levels = clinic.doses["drug"].padded()
    np.testing.assert_array_equal(edges, [[0, 21], [0, 14]])
    np.testing.assert_array_equal(levels, [[50, 0], [50, 25]])
    np.testing.assert_array_equal(
        clinic.doses["drug"].at(1, np.array([-1, 0, 7, 13.9, 14, 99])), [0, 50, 50, 50, 25, 25]
    )


def test_padding_of_doses_repeats_the_last_level_for_ever(write: Callable[..., Path]) -> None:
    path = write("id,t,v,d\na,0,1,2\na,5,1,0\na,6,1,3\nb,1,1,4\nc,1,1,0\nd,1,1,\n")
    schema = TableSchema(("id",), "t", "day", {"x": Quantity("v", "1")}, doses={"d": Dose("d", blank=0.0)})
    edges, levels = read_table(path, schema).doses["d"].padded()
    np.testing.assert_array_equal(edges[1], [1, np.inf, np.inf])
    np.testing.assert_array_equal(levels[1:], [[4, 4, 4], [0, 0, 0], [0, 0, 0]])


def test_a_row_without_a_reading_keeps_its_dose(write: Callable[..., Path]) -> None:
    path = write("id,t,v,d\na,0,7,0\na,5,,1\n")
    schema = TableSchema(("id",), "t", "day", {"x": Quantity("v", "1", missing=("",))}, doses={"d": Dose("d")})
    table = read_table(path, schema)
    assert table.padded().values.shape == (1, 1)
    np.testing.assert_array_equal(table.doses["d"].edges[0], [5])
    assert any("1 of 2 rows hold no reading" in note for note in table.notes)


def test_rows_out_of_order_are_sorted_and_noted(write: Callable[..., Path]) -> None:
    table = read_table(write(rows("b,4,3", "a,2,1", "b,1,2", "a,3,5")), PLAIN)
    assert table.subjects == ("b", "a")
    np.testing.assert_array_equal(table.padded().times, [[1, 4], [2, 3]])
    np.testing.assert_array_equal(table.padded().values, [[2, 3], [1, 5]])
    (note,) = [n for n in table.notes if "time order" in n]
    assert "'b'" in note and "'a'" not in note


def test_a_single_reading_is_kept_and_noted(write: Callable[..., Path]) -> None:
    table = read_table(write(rows("a,0,1", "b,0,1", "b,1,2")), PLAIN)
    assert table.subjects == ("a", "b")
    assert table.notes == ("size: a single reading for 'a'",)


def test_an_all_censored_series_is_allowed_and_noted(write: Callable[..., Path]) -> None:
    schema = TableSchema(("id",), "t", "day", {"x": Quantity("v", "1", limit=3.0)})
    table = read_table(write(rows("a,0,1", "a,1,2", "b,0,4", "b,1,1")), schema)
    assert table.notes == ("x: every reading is an interval for 'a'",)


def test_subjects_of_several_columns(write: Callable[..., Path]) -> None:
    path = write("study,id,t,v\n1,a,0,1\n2,a,0,2\n")
    table = read_table(path, TableSchema(("study", "id"), "t", "day", {"x": Quantity("v", "1")}))
    assert table.subjects == ("1/a", "2/a")


def test_other_forms_of_text_and_parquet_read_the_same(
    write: Callable[..., Path], tmp_path: Path, clinic: Table
) -> None:
    semicolons = TableSchema(**{**vars(CLINIC_SCHEMA), "separator": ";"})
    twins = [
        read_table(write(CLINIC.replace(",", "\t"), "t.tsv"), CLINIC_SCHEMA),
        read_table(write(CLINIC.replace(",", ";"), "s.csv"), semicolons),
        read_table(write("\ufeff" + CLINIC.replace("\n", "\r\n") + "\r\n", "w.csv"), CLINIC_SCHEMA),
    ]
    pytest.importorskip("pyarrow")
    import pandas as pd

    frame = pd.read_csv(write(CLINIC))
    frame["age"] = frame["age"].astype("Int64")
    assert str(frame["age"].dtype) == "Int64"
    frame.to_parquet(tmp_path / "p.parquet")
    twins.append(read_table(tmp_path / "p.parquet", CLINIC_SCHEMA))
    for twin in twins:
        assert twin.subjects == clinic.subjects and twin.notes == clinic.notes
        for name in clinic.quantities:
            for field in ("times", "values", "lower", "upper", "valid"):
                np.testing.assert_array_equal(getattr(twin.padded(name), field), getattr(clinic.padded(name), field))


MISTAKES = [
    ("id,t,v\na,0,x\n", ["line 2", "'v'", "a number", "'x'"]),
    ("id,t,v\na,0,1\n\n\na,1,x\n", ["line 5"]),
    ("id,t,v\na,0,\n", ["line 2", "blank cell", "missing"]),
    ("id,t,v\na,0,nan\n", ["line 2", "finite", "'nan'"]),
    ("id,t,v\na,inf,1\n", ["line 2", "'t'", "finite", "'inf'"]),
    ("id,t,v\na,0,-3\n", ["line 2", "0 or more", "'-3'"]),
    ("id,t,v\na,0,1_0\n", ["'1_0'", "a number"]),
    ('id,t,v\na,0,"3,5"\n', ["'3,5'", "with a point"]),
    ("id,t,v\n,0,1\n", ["line 2", "'id'", "the name of a subject"]),
    ("id,t,v\na,0,x\nb,y,z\na,1,1\n", ["line 2", "and 2 more"]),
    ("id,t,v\na,0,1\nb,0,1\na,0.0,2\n", ["line 4", "'a'", "line 2", "merge"]),
    ("id,t,v\na,0,1,9\n", ["line 2", "3 cells", "4 cells"]),
    ("id,t,v\na,0,1\na,1\n", ["line 3", "3 cells", "2 cells"]),
    ("id,t,v\n", ["at least one row"]),
    ("", ["a header", "an empty file"]),
    ("id,time,v\na,0,1\n", ["a column 't'", "columns id, time, v", "'time'"]),
    ("id,t,V\na,0,1\n", ["a column 'v'", "'V'"]),
    ("id;t;v\na;0;1\n", ["separator: ';'"]),
    ("id,t,v,v\na,0,1,2\n", ["one column 'v'", "2 columns"]),
]


@pytest.mark.parametrize(("text", "words"), MISTAKES)
def test_a_mistake_says_where_what_and_what_to_try(write: Callable[..., Path], text: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        read_table(write(text), PLAIN)
    for word in (*words, "t.csv", "required:", "received:", "try:"):
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({("a,3,too small", "a,3,to small")}, ["line 3", "'mm'", "'to small'"]),
        ({("<0.1,0,one", "<0.1,0,ono")}, ["line 3", "'arm'", "one value a subject", "'one', 'ono'"]),
        ({("<0.1,0,one", "<0.1,,one")}, ["line 3", "'dose'", "blank"]),
        ({("<0.1,0,one", "<0.1,-1,one")}, ["line 3", "'dose'", "0 or more"]),
        ({("one,61\na,3", "one,old\na,3")}, ["line 2", "'age'", "a number"]),
        ({("one,61\na,3", ",61\na,3")}, ["line 2", "'arm'", "a blank cell"]),
        ({("<0.1", "<x")}, ["line 3", "'psa'", "'<x'"]),
    ],
)
def test_mistakes_of_doses_covariates_and_words(
    write: Callable[..., Path], change: set[tuple[str, str]], words: list[str]
) -> None:
    ((old, new),) = change
    assert CLINIC.count(old) == 1
    with pytest.raises(InputError) as caught:
        read_table(write(CLINIC.replace(old, new)), CLINIC_SCHEMA)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_files_that_are_no_tables(write: Callable[..., Path], tmp_path: Path) -> None:
    write(rows("a,0,1"), "visits.csv")
    for name, words in {
        "visit.csv": ["no such file", "'visits.csv'"],
        "none/visits.csv": ["no such folder"],
        "visits.xlsx": [".csv", ".parquet", ".xlsx"],
    }.items():
        with pytest.raises(InputError) as caught:
            read_table(tmp_path / name, PLAIN)
        for word in words:
            assert word in str(caught.value), str(caught.value)
    with pytest.raises(InputError, match="UTF-8"):
        read_table(write(rows("é,0,1"), "latin.csv", "latin-1"), PLAIN)
    with pytest.raises(InputError, match="UTF-8"):
        read_table(write('id,t,v\n"a"x,0,1\n', "quote.csv"), PLAIN)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="[Pp]arquet"):
        read_table(tmp_path / "broken.parquet", PLAIN)


def test_no_reading_at_all_is_refused(write: Callable[..., Path]) -> None:
    schema = TableSchema(("id",), "t", "day", {"x": Quantity("v", "1", missing=("",))})
    with pytest.raises(InputError, match="at least one reading"):
        read_table(write(rows("a,0,", "b,0,")), schema)


def test_repeats_are_merged_only_where_they_agree(write: Callable[..., Path]) -> None:
    schema = TableSchema(("id",), "t", "day", {"x": Quantity("v", "1")}, repeats="merge")
    table = read_table(write("id,t,v,w\na,1,2,x\na,1.0,2,y\na,2,2,x\n"), schema)
    np.testing.assert_array_equal(table.padded().times, [[1, 2]])
    assert any("1 rows that repeat" in note for note in table.notes)
    with pytest.raises(InputError, match="line 3"):
        read_table(write(rows("a,1,2", "a,1,3")), schema)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Quantity("v", "ng/ml"), ["'ng/ml'", "'ng/mL'"]),
        (lambda: TableSchema(("id",), "t", "days", {"x": Quantity("v", "1")}), ["'days'", "'day'"]),
        (lambda: TableSchema((), "t", "day", {"x": Quantity("v", "1")}), ["subject"]),
        (lambda: TableSchema(("id",), "t", "day", {}), ["quantities"]),
        (lambda: Quantity("v", "1", rounding=-1.0), ["rounding"]),
        (lambda: Quantity("v", "1", minimum=None, limit=1.0), ["minimum"]),
        (lambda: Quantity("v", "1", limit=-1.0), ["limit"]),
        (lambda: Recorded(0.0, 5.0, 5.0), ["low < high"]),
    ],
)
def test_a_declaration_that_cannot_be(build: Callable[[], Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        build()
    for word in words:
        assert word in str(caught.value)


def test_select_where_and_subjects_apart(clinic: Table) -> None:
    back = clinic.select(["b", "a"])
    np.testing.assert_array_equal(back.padded("psa").values, clinic.padded("psa").values[::-1])
    np.testing.assert_array_equal(back.doses["drug"].edges[0], clinic.doses["drug"].edges[1])
    assert list(back.covariates["arm"]) == ["two", "one"]
    assert clinic.where(arm="two").subjects == ("b",)
    training, held_out = clinic.split_subjects(["a"])
    assert (training.subjects, held_out.subjects) == (("b",), ("a",))
    assert clinic.with_at_least(3).subjects == ("b",)
    assert "1 of 2 subjects with fewer than 3 readings" in clinic.with_at_least(3).notes[-1]
    for call, words in [
        (lambda: clinic.select(["c"]), "'c'"),
        (lambda: clinic.select(["a", "a"]), "each once"),
        (lambda: clinic.where(sex="f"), "'sex'"),
        (lambda: clinic.where(arm="three"), "one, two"),
        (lambda: clinic.padded("weight"), "'weight'"),
        (lambda: clinic.split_last(0), "n = 0"),
    ]:
        with pytest.raises(InputError, match=words):
            call()


def test_the_last_readings_are_held_out_and_nobody_disappears(clinic: Table) -> None:
    known, held = clinic.split_last(1, "psa")
    assert known.subjects == held.subjects == clinic.subjects
    np.testing.assert_array_equal(known.padded("psa").values, [[4100], [2000]])
    np.testing.assert_array_equal(held.padded("psa").values, [[100], [3000]])
    np.testing.assert_array_equal(known.padded("diameter").values, [[12, 0], [31, 30]])
    known, held = clinic.split_last(2, "diameter")
    assert list(known.counts("diameter")) == [2, 1] and list(held.counts("diameter")) == [0, 2]
    assert any("1 subjects with 2 readings or fewer" in note for note in held.notes)


def test_before_a_day_and_whether_later_doses_are_known(clinic: Table) -> None:
    early = clinic.before(14.0)
    assert list(early.counts()) == [1, 2]
    np.testing.assert_array_equal(early.doses["drug"].edges[1], [0, 14])
    np.testing.assert_array_equal(clinic.before(14.0, future_doses=False).doses["drug"].edges[1], [0])
    np.testing.assert_array_equal(clinic.before(14.1, future_doses=False).doses["drug"].edges[1], [0, 14])
    each = clinic.before(np.array([0.0, 7.0]))
    assert list(each.counts()) == [0, 1] and each.subjects == ("a", "b")
    assert each.padded().times.shape == (2, 1) and not each.padded().valid[0].any()


def test_a_table_cannot_be_changed(clinic: Table) -> None:
    with pytest.raises(ValueError, match="read-only"):
        clinic.row_day[0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        clinic.quantities["psa"].value[0] = 1.0
    with pytest.raises(TypeError):
        clinic.quantities["x"] = clinic.quantities["psa"]  # type: ignore
    with pytest.raises(AttributeError):
        clinic.notes = ()  # type: ignore


@settings(max_examples=15, deadline=None)
@given(
    data=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(-50, 50), st.floats(0, 1e6)),
        min_size=1,
        max_size=12,
        unique_by=lambda r: r[:2],
    ),
    n=st.integers(1, 3),
)
def test_nothing_is_lost_between_file_and_parts(
    data: list[tuple[str, int, float]], n: int, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("t") / "t.csv"
    path.write_text(rows(*(f"{s},{t},{v!r}" for s, t, v in data)))
    table = read_table(path, PLAIN)
    parts = table.split_last(n)
    found = sorted(
        (p.subjects[s], float(p.times[s, k]), float(p.values[s, k]))
        for p in (part.padded() for part in parts)
        for s, k in np.argwhere(p.valid)
    )
    assert found == sorted((s, float(t), v) for s, t, v in data)
    for known, held in zip(parts[0].padded().valid, parts[1].padded().valid, strict=True):
        assert held.sum() == (n if known.sum() + held.sum() > n else 0)
    assert (np.diff(table.padded().times, axis=1) >= 0).all()


@pytest.mark.parametrize("name", table_layouts())
def test_every_layout_is_the_one_that_composes(name: str) -> None:
    config = compose([f"table={name}"]).config.table
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(config)
    assert layout_from(plain, name=name) == table_layout(name)
    assert (config_dir() / "table" / f"{name}.yaml").is_file()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"time": {"column": "t"}}, ["`unit`"]),
        ({"time": "t"}, ["time", "mapping"]),
        ({"quantites": {}}, ["`quantites`", "'quantities'"]),
        ({"quantities": {"x": {"column": "v", "unit": "1", "rounding": "one"}}}, ["rounding", "a number", "'one'"]),
        ({"quantities": {"x": {"column": "v", "unit": "1", "minimum": True}}}, ["minimum", "True"]),
        ({"quantities": {"x": {"column": "v", "unit": "1", "round": 1.0}}}, ["`round`", "'rounding'"]),
        ({"quantities": {"x": {"column": "v", "unit": "1", "recorded": [{"entry": 0, "low": 0}]}}}, ["`high`"]),
        ({"doses": ["d"]}, ["doses", "mapping"]),
    ],
)
def test_a_declaration_with_a_mistake_names_it(change: dict[str, Any], words: list[str]) -> None:
    good = {"subject": "id", "time": {"column": "t", "unit": "day"}, "quantities": {"x": {"column": "v", "unit": "1"}}}
    assert schema_from(good).subject == ("id",)
    with pytest.raises(InputError) as caught:
        schema_from({**good, **change})
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_a_layout_of_ones_own_reads_another_folder(tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text(
        "folder: study\nfile: v.csv\nsubject: id\ntime: {column: t, unit: week}\n"
        "quantities:\n  x: {column: v, unit: '1', missing: ['']}\n"
    )
    (tmp_path / "v.csv").write_text(rows("p,1,2", "p,2,"))
    table = load_table(table_layout(own), tmp_path)
    assert table.padded().times[0, 0] == 7
    with pytest.raises(InputError, match="other.csv"):
        load_table(table_layout(own), tmp_path, file="other.csv")
    with pytest.raises(InputError, match="'benzekry_lung'"):
        table_layout("benzekri_lung")


def test_courses_become_levels_and_the_day_of_surgery(write: Callable[..., Path], tmp_path: Path) -> None:
    table = read_table(write(rows("1,0,5", "1,9,6", "2,0,5", "2,3,4")), PLAIN)
    start = datetime.date(2010, 1, 1)
    plan = {
        "s": "2009-12-22",
        "c2": ["2010-02-10", "2010-02-20"],
        "c2_days": [40, 50],
        "c": [str(start + datetime.timedelta(10)), "2010-01-21"],
        "c_days": [10, 20],
        "r_days": [5, 6],
        "nb_tmz_doses": 7,
    }
    file = tmp_path / "c.json"
    file.write_text(json.dumps({"1": {"treatments": plan}, "2": {"treatments": {}}, "9": {}}))
    treated = read_courses(table, file)
    np.testing.assert_array_equal(treated.doses["temozolomide"].edges[0], [10, 20, 40, 50])
    np.testing.assert_array_equal(treated.doses["temozolomide"].at(0, np.array([9.0, 10, 20, 45, 60])), [0, 1, 0, 1, 0])
    np.testing.assert_array_equal(treated.doses["radiotherapy"].edges[0], [5, 6])
    assert treated.doses["radiotherapy"].edges[1].size == 0
    np.testing.assert_array_equal(treated.covariates["surgery_day"], [-10, np.nan])
    np.testing.assert_array_equal(treated.covariates["temozolomide_doses"], [7, np.nan])
    for bad, words in {
        '{"1": {"treatments": {}}}': "'2'",
        "{": "JSON",
        '{"1": {"treatments": {"c_days": [3, 2]}}, "2": {"treatments": {}}}': "start before end",
        '{"1": {"treatments": {"c_days": [1, 5], "c2_days": [4, 6]}}, "2": {"treatments": {}}}': "overlap",
    }.items():
        file.write_text(bad)
        with pytest.raises(InputError, match=words):
            read_courses(table, file)


def test_the_example_of_the_page_reads_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "use" / "tables.md").read_text(encoding="utf-8")
    blocks = [b.split("```")[0] for b in page.split("```python\n")[1:]]
    texts = [b.split("```")[0] for b in page.split("```text\n")[1:]]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "visits.csv").write_text(texts[0])
    (tmp_path / "mine.yaml").write_text(texts[1])
    (tmp_path / "DIR").mkdir()
    (tmp_path / "DIR" / "visits.csv").write_text(texts[0])
    space: dict[str, Any] = {}
    exec(compile(blocks[0] + blocks[1] + blocks[3], "tables.md", "exec"), space)
    assert space["table"].subjects == ("a", "b") and space["test"].subjects == ("b",)
    assert space["many"].subjects == space["one"].subjects == ("a",)
    np.testing.assert_array_equal(space["mine"].padded().values, space["table"].padded("diameter").values)
