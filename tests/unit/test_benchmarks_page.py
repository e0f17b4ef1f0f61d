"""The page of benchmarks says what the results say, the unwelcome part too."""

import json

import pytest

from experiments.benchmarks import page

METRIC = {
    "name": "error",
    "better": "lower",
    "published": {"label": "a law", "value": 0.003, "source": "somebody 2022"},
    "baselines": {"persistence": "persistence", "mean": "mean"},
    "ours": {"twin": "twin"},
}


def written(folder, values, metric=METRIC):
    (folder / "x").mkdir()
    told = {"title": "X", "protocol": "Two held out.", "metrics": [metric], "coverage": {"step 1": "inside"}}
    (folder / "x" / "benchmark.json").write_text(json.dumps(told))
    rows = [{"name": n, "value": v, "unit": "1", "target": None, "source": None} for n, v in values.items()]
    (folder / "x" / "results.json").write_text(json.dumps(rows))
    return page.page(folder)


def test_a_published_number_that_loses_to_persistence_is_said_with_both_numbers(tmp_path):
    text = written(tmp_path, {"persistence": 0.0024, "mean": 0.01, "twin": 0.0023, "inside": 0.95})
    assert "The published 0.003 does not beat a trivial baseline (persistence, 0.0024)." in text
    assert "Ours (0.0023) beats the best baseline" in text and "step 1 0.95" in text


def test_our_own_loss_is_said(tmp_path):
    text = written(tmp_path, {"persistence": 0.0024, "mean": 0.01, "twin": 0.0025, "inside": 0.95})
    assert "Ours (0.0025) does not beat the best baseline (persistence, 0.0024)." in text
    assert "better than the published" in text and "not better than the published" not in text


def test_higher_is_better_where_it_is(tmp_path):
    metric = {**METRIC, "better": "higher"}
    text = written(tmp_path, {"persistence": 0.5, "mean": 0.4, "twin": 0.6, "inside": 0.9}, metric)
    assert "Ours (0.6) beats the best baseline (persistence, 0.5)" in text and "better than the published" in text


def test_a_verdict_that_was_not_found_is_an_error(tmp_path):
    with pytest.raises(KeyError, match="twin"):
        written(tmp_path, {"persistence": 0.5, "mean": 0.4, "inside": 0.9})


@pytest.mark.skipif(not page.names(), reason="no experiment has a place on the page yet")
def test_the_page_is_what_the_results_say():
    assert page.PAGE.read_text(encoding="utf-8") == page.page()
