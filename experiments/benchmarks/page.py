"""docs/understand/benchmarks.md, from what the experiments found.

`python -m experiments.benchmarks.page` writes the page from `experiments/NAME/results.json`;
`... page take RUNS` first takes these files from the latest finished run of every experiment under the folder RUNS.
What a row means stands in `experiments/NAME/benchmark.json`: data, protocol, and metrics. A metric has a published
value or none, the verdicts of trivial baselines, and ours. No number of the page is typed by hand except the published
ones, which carry their source.
"""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "experiments"
PAGE = ROOT / "docs" / "understand" / "benchmarks.md"
HEAD = """# Benchmarks on public data

Generated from the results of the experiments (`python -m experiments.benchmarks.page`); do not edit. A section is one
command, `tumortwin reproduce NAME`. A trivial baseline needs no mechanism. Where a published headline or our own model
does not beat one, the sentence below the table says so. Sentences compare the numbers as they stand; intervals of the
differences are in the results of each experiment.
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """One forecaster's value of one metric; `kind`: published, baseline or ours."""

    kind: str
    label: str
    value: float


def results(name: str, folder: Path = FOLDER) -> dict[str, float]:
    """The numbers of an experiment, by the names of its verdicts."""
    rows = json.loads((folder / name / "results.json").read_text(encoding="utf-8"))
    return {row["name"]: row["value"] for row in rows}


def rows_of(metric: dict[str, Any], found: dict[str, float], where: str) -> list[Row]:
    """The rows of a metric. A verdict that is not in the results is an error."""
    rows = []
    if (published := metric.get("published")) is not None:
        rows.append(Row("published", published["label"], float(published["value"])))
    for kind in ("baselines", "ours"):
        for label, verdict in metric[kind].items():
            if verdict not in found:
                raise KeyError(f"required: verdict {verdict!r} in the results of {where}; received: {sorted(found)}")
            rows.append(Row(kind.removesuffix("s") if kind == "baselines" else kind, label, found[verdict]))
    return rows


def sentences(rows: list[Row], lower: bool) -> list[str]:
    """What beats what: published against the best baseline, ours against the best baseline and the published."""

    def best(kind: str) -> Row | None:
        of_kind = [row for row in rows if row.kind == kind]
        return (min if lower else max)(of_kind, key=lambda row: row.value) if of_kind else None

    def better(one: Row, other: Row) -> bool:
        return one.value < other.value if lower else one.value > other.value

    published, baseline, ours = best("published"), best("baseline"), best("ours")
    said = []
    if published and baseline and not better(published, baseline):
        said.append(
            f"The published {published.value:.4g} does not beat a trivial baseline ({baseline.label}, "
            f"{baseline.value:.4g})."
        )
    if ours and baseline:
        verb = "beats" if better(ours, baseline) else "does not beat"
        said.append(f"Ours ({ours.value:.4g}) {verb} the best baseline ({baseline.label}, {baseline.value:.4g}).")
    if ours and published:
        verb = "better than" if better(ours, published) else "not better than"
        said.append(f"It is {verb} the published value.")
    return said


def section(name: str, folder: Path = FOLDER) -> str:
    """One experiment."""
    told = json.loads((folder / name / "benchmark.json").read_text(encoding="utf-8"))
    found = results(name, folder)
    lines = [f"## {told['title']}", "", f"`tumortwin reproduce {name}`. {told['protocol']}", ""]
    for metric in told["metrics"]:
        rows = rows_of(metric, found, name)
        lower = metric["better"] == "lower"
        lines += [f"| {metric['name']} ({metric['better']} is better) | |", "|---|---|"]
        lines += [f"| {row.kind}: {row.label} | {row.value:.4g} |" for row in rows]
        lines += ["", " ".join(sentences(rows, lower)), ""]
        if (published := metric.get("published")) is not None:
            lines += [f"Published value: {published['source']}", ""]
    if told.get("coverage"):
        shares = ", ".join(f"{label} {found[verdict]:.3g}" for label, verdict in told["coverage"].items())
        lines += [f"Coverage of 95 % intervals: {shares}.", ""]
    return "\n".join([*lines, *told.get("notes", [])]).rstrip() + "\n"


def names(folder: Path = FOLDER) -> list[str]:
    """The experiments that have a place on the page, and results."""
    return sorted(p.parent.name for p in folder.glob("*/benchmark.json") if p.with_name("results.json").is_file())


def page(folder: Path = FOLDER) -> str:
    """The whole page."""
    return "\n".join([HEAD, *(section(name, folder) for name in names(folder))])


def take(runs: Path) -> None:
    """Copies the results of the latest finished, full run of every experiment."""
    for name in sorted(path.parent.name for path in FOLDER.glob("*/benchmark.json")):
        done = [
            p.parent
            for p in sorted((runs / "reproduce" / name).glob("*/DONE"))
            if not json.loads((p.parent / "provenance.json").read_text())["argv"][-1:] == ["runtime=ci"]
        ]
        if done:
            shutil.copyfile(done[-1] / "results.json", FOLDER / name / "results.json")
            print(f"{name}: {done[-1].name}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["take"]:
        take(Path(sys.argv[2] if len(sys.argv) > 2 else "runs"))
    PAGE.write_text(page(), encoding="utf-8")
