"""The page as a whole: what it says, what it embeds, and what it leaves behind."""

import dataclasses
import html.parser
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from tumortwin import report as r

sys.path.insert(0, str(Path(__file__).parent))
import report_demo  # noqa: E402

FIGURES = {
    "anatomy",
    "coverage",
    "fit_masks",
    "fit_volumes",
    "forecast",
    "p_tumor_day180",
    "p_tumor_days",
    "parameters",
    "plan",
    "scores",
}


@pytest.fixture(scope="module")
def full() -> r.ReportData:
    return report_demo.demo(coarse=4)


@pytest.fixture(scope="module")
def page(full: r.ReportData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    before = dict(matplotlib.rcParams)
    path = r.write_report(full, tmp_path_factory.mktemp("report"))
    assert dict(matplotlib.rcParams) == before
    return path


class Tags(html.parser.HTMLParser):
    """Every tag with its attributes; checks that what opens also closes."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self) -> None:
        html.parser.HTMLParser.__init__(self)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags(text: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(text)
    assert parser.open == []
    return parser.found


def test_figures_lie_beside_the_page_and_in_it(page: Path) -> None:
    written = {p.stem for p in (page.parent / "figures").iterdir()}
    assert written == FIGURES
    for path in (page.parent / "figures").iterdir():
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 5000
    images = [a for tag, a in tags(page.read_text()) if tag == "img"]
    assert len(images) == len(FIGURES)
    assert all((a["src"] or "").startswith("data:image/png;base64,") and len(a["alt"] or "") > 20 for a in images)


def test_nothing_is_loaded_from_anywhere(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r"https?://|//cdn|@import|url\(", text)
    for tag, attrs in tags(text):
        assert tag not in ("script", "link", "iframe", "object")
        assert not any(name.startswith("on") for name in attrs)
        for name in ("src", "href"):
            assert (attrs.get(name) or "#").startswith(("#", "data:image/png"))


def test_the_disclaimer_comes_before_every_picture(page: Path) -> None:
    text = page.read_text()
    assert 0 < text.index("Research software, not a medical device") < text.index("<h1>") < text.index("<img")


def test_contents_point_at_sections(page: Path) -> None:
    found = tags(page.read_text())
    ids = [a["id"] for _, a in found if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"] for t, a in found if t == "a"} <= {f"#{i}" for i in ids}


def test_the_answer_states_the_numbers_of_the_data(page: Path, full: r.ReportData) -> None:
    prediction = full.prediction("t1gd")
    assert prediction is not None
    median, low, high = (v / 1000 for v in prediction.at(180.0))
    line = f"expected at {median:.1f} mL (95 % prediction interval {low:.1f}–{high:.1f})"
    assert line in page.read_text()
    plan = full.plan
    assert plan is not None
    share = np.mean(plan.standard.outcome - plan.recommended.outcome > 0)
    assert f"It helps in {100 * share:.0f} % of the draws" in page.read_text()


def test_the_front_of_the_plan_is_said(page: Path) -> None:
    assert "Front against total dose: from 24 Gy to 60 Gy, 5 plans." in page.read_text(encoding="utf-8")


def test_what_is_worse_is_said(page: Path) -> None:
    text = page.read_text()
    assert "better in 5, worse in 2" in text
    assert text.index("The twin is worse") < text.index("The twin is better")
    assert "4.60 against 4.10 mm (dilation)" in text


def test_inserted_text_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script> & \"quoted\""
    data = dataclasses.replace(
        report_demo.minimal(),
        title=evil,
        question=evil,
        limits=(evil,),
        citations=(evil,),
        provenance={evil: {evil: 1}},
        absent={"plan": evil},
    )
    text = r.write_report(data, tmp_path).read_text()
    assert "<script" not in text and text.count("&lt;script&gt;") >= 6
    tags(text)


def test_the_least_data_still_makes_a_page_that_says_what_is_missing(tmp_path: Path) -> None:
    path = r.write_report(report_demo.minimal(), tmp_path)
    text = path.read_text()
    assert "<img" not in text and not (tmp_path / "figures").exists()
    assert "No forecast was made. On day 0 the scan shows FLAIR abnormality 31.0 mL." in text
    told = ("There is one visit only", "No scores:", "No schedule is recommended", "No limits were stated")
    for said in (*told, "No provenance was given"):
        assert said in text


def without(data: r.ReportData, name: str) -> r.ReportData:
    empty = {"anatomy": None, "diagnostics": None, "forecast": None, "plan": None}
    return dataclasses.replace(data, **{name: empty.get(name, ())})


@pytest.mark.parametrize("name", ["anatomy", "forecast", "hidden", "masks", "lone_visit"])
def test_every_part_may_be_missing(full: r.ReportData, name: str, tmp_path: Path) -> None:
    patient, visits = full.patient, full.patient.visits
    lean = dataclasses.replace(full, parameters=(), coverage=(), plan=None, fit=full.fit[:1])
    if name == "hidden":
        shown = dataclasses.replace(patient, visits=tuple(v for v in visits if not v.hidden))
        data = dataclasses.replace(lean, patient=shown, scores=())
    elif name == "masks":
        bare = dataclasses.replace(patient, visits=tuple(dataclasses.replace(v, masks={}) for v in visits))
        data = dataclasses.replace(lean, patient=bare)
    elif name == "lone_visit":
        data = dataclasses.replace(lean, patient=dataclasses.replace(patient, visits=visits[:1]), scores=())
    else:
        data = without(lean, name)
    text = r.write_report(data, tmp_path).read_text()
    tags(text)
    unknown = {"hidden": "how good it is for this patient is not known", "lone_visit": "There is one visit only"}
    assert unknown.get(name, "") in text
    assert "Not in this report" in text and "Research software" in text


def test_an_empty_mask_and_a_vanished_tumor_are_drawn(full: r.ReportData, tmp_path: Path) -> None:
    empty = {k: r.Image(np.zeros_like(i.values), i.affine) for k, i in full.patient.visits[1].masks.items()}
    gone = dataclasses.replace(full.patient.visits[1], masks=empty, volumes={"t1gd": 0.0, "flair": 0.0})
    visits = (full.patient.visits[0], gone, *full.patient.visits[2:])
    days = np.array([0.0, 180.0])
    zero = r.VolumePrediction("t1gd", days, np.zeros(2), np.zeros(2), np.zeros(2))
    assert full.forecast is not None
    data = dataclasses.replace(
        full,
        patient=dataclasses.replace(full.patient, visits=visits),
        forecast=dataclasses.replace(full.forecast, volumes=(zero,), baselines=()),
        parameters=(),
        plan=None,
        fit=(),
    )
    assert "expected at 0.00 mL" in r.write_report(data, tmp_path).read_text()


def test_a_failed_write_leaves_the_old_page_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    least = r.ReportData("the old one", "q", r.PatientSummary("p"), (r.Channel("c", "c"),))
    page = r.write_report(least, tmp_path)
    before = sorted(tmp_path.rglob("*"))

    def broken(*_: object) -> None:
        raise OSError("disk broken")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk broken"):
        r.write_report(dataclasses.replace(least, title="the new one"), tmp_path)
    monkeypatch.undo()
    assert "the old one" in page.read_text() and sorted(tmp_path.rglob("*")) == before


def test_no_global_plotting_state_is_touched() -> None:
    code = (
        "import sys, tumortwin.report; assert 'matplotlib.pyplot' not in sys.modules; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
