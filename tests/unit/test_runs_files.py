"""Files appear whole or not at all, also when the disk is full; numbers and verdicts are written as promised."""

import errno
import io
import json
import os
import re
import time

import numpy as np
import pytest

from tumortwin._errors import InputError
from tumortwin.runs import (
    JsonlTracker,
    Progress,
    Verdict,
    at_least,
    at_most,
    atomic_path,
    between,
    measured,
    read_json,
    write_json,
    write_text,
)


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as path:
        path.write_text("half")
        assert target.read_text() == "old"
        raise ZeroDivisionError
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_temporary_name_keeps_the_ending(tmp_path):
    with atomic_path(tmp_path / "mask.nii.gz") as path:
        assert path.name.endswith("mask.nii.gz") and path.parent == tmp_path
        path.write_bytes(b"x")


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "posterior.zarr"
    for content in ("one", "two"):
        with atomic_path(target) as path:
            path.mkdir()
            (path / content).write_text(content)
        assert [p.name for p in target.iterdir()] == [content]
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as path:
        path.mkdir()
        raise KeyboardInterrupt
    assert [p.name for p in target.iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["posterior.zarr"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_bad_input_and_leaves_nothing(tmp_path, monkeypatch, code):
    def full(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="room on the disk"):
        write_text(tmp_path / "a.txt", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_seen_through_a_library_that_wraps_it(tmp_path):
    with pytest.raises(InputError, match="a.zarr"), atomic_path(tmp_path / "a.zarr") as path:
        path.mkdir()
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError as error:
            raise RuntimeError("could not write chunk") from error
    assert list(tmp_path.iterdir()) == []


def test_json_knows_arrays_and_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"x": np.arange(3.0), "nan": float("nan"), "n": np.float32(0.5), "p": tmp_path})
    assert read_json(tmp_path / "a.json") == {"x": [0.0, 1.0, 2.0], "nan": None, "n": 0.5, "p": str(tmp_path)}
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_metrics_survive_a_kill_in_the_middle_of_a_line(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    tracker = JsonlTracker(file)
    tracker.log(2, loss=np.float64(1.0))
    tracker.close()
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(r["step"], r["loss"]) for r in rows] == [(1, 2.0), (2, 1.0)]


def test_verdicts():
    nan = float("nan")
    assert [v.ok for v in (at_most("a", 1.0, 1.0), at_most("a", 1.1, 1.0), at_most("a", nan, 1.0))] == [
        True,
        False,
        False,
    ]
    assert [v.ok for v in (at_least("a", 1.0, 1.0), at_least("a", 0.9, 1.0), at_least("a", nan, 1))] == [
        True,
        False,
        False,
    ]
    assert [v.ok for v in (between("a", 2.0, 1.9, 2.1), between("a", 2.2, 1.9, 2.1))] == [True, False]
    assert measured("a", np.float32(3.0)).ok and not measured("a", nan).ok
    assert at_most("spatial order", 1.8, 1.9, "1/mm").line() == "verdict spatial_order 1.8 1/mm target <= 1.9 ok"
    assert at_least("a", 0.5, 0.9).line() == "verdict a 0.5 1 target >= 0.9 missed"
    assert measured("a", 2).line() == "measured a 2 1"
    assert set(Verdict("a", 1.0).result()) == {"name", "value", "unit", "target", "source"}


@pytest.mark.parametrize("mode, every", [("auto", 30.0), ("off", 0.0)])
def test_progress_is_silent_where_nobody_watches(mode, every):
    stream = io.StringIO()
    progress = Progress(mode, stream, every=every)
    with progress.task("work", total=2) as task, progress.callback("inner") as report:
        task.advance()
        report(1, 3, note="x")
        progress.say("line")
    assert stream.getvalue() == ""


def test_progress_of_long_work_is_a_line_now_and_then_in_a_log():
    stream = io.StringIO()
    every, began = 0.05, time.monotonic()
    progress = Progress("auto", stream, every=every)
    with progress.task("work", total=40) as task, progress.callback("inner") as report:
        for step in range(40):
            task.advance()
            time.sleep(0.005)
            report(step, 40, note="draws")
    lines = stream.getvalue().splitlines()
    assert 1 <= len(lines) <= (time.monotonic() - began) / every < 80  # fewer than reports
    assert all(re.fullmatch(r"\[0:00:\d\d\] (work|inner): \d+ of 40( draws)?", line) for line in lines)


def test_work_goes_on_when_nobody_reads_its_lines_any_more(monkeypatch):
    stream = io.StringIO()
    progress, asked = Progress("auto", stream, every=0.0), []

    def closed(text):
        asked.append(text)
        raise BrokenPipeError

    monkeypatch.setattr(stream, "write", closed)
    with progress.task("work", total=3) as task:
        for _ in range(3):
            task.advance()
    assert len(asked) == 1  # and it is not tried again


def test_progress_is_shown_when_asked_for():
    stream = io.StringIO()
    progress = Progress("on", stream)
    with progress.task("work", total=2) as task, progress.callback("inner") as report:
        task.advance(2)
        report(1, 3, note="x")
        progress.say("a line [not markup]")
    assert "work" in stream.getvalue() and "a line [not markup]" in stream.getvalue()
    with pytest.raises(ValueError, match="received: 'loud'"):
        Progress("loud")
