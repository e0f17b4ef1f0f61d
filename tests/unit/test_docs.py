"""The documentation tells the truth about what can be typed: links, commands, overrides, the example of the README."""

import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from tumortwin.cli import JOBS, QUESTIONS, parse_arguments
from tumortwin.config import compose, flatten, group_options, groups, instantiate, one_of_each
from tumortwin.solvers import simulate_compartment

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "data").glob("*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
VERB = re.compile(r"(?<!from )(?<![\w./-])tumortwin(?: -m)? ([a-z]{3,})\b(?! *\|)")
OUTSIDE = ("http://", "https://", "mailto:")
COMPARED = 1e-3  # relative, of a gradient with a central difference of a float32 field


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(text: str) -> str:
    """The page without its code blocks."""
    return FENCE.sub("", text)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as MkDocs and GitHub make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_somewhere(page):
    for target in LINK.findall(prose(page.read_text(encoding="utf-8"))):
        if target.startswith(OUTSIDE):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), f"{name(page)}: {target} leads nowhere"
        if anchor:
            assert anchor in anchors(there), f"{name(page)}: no heading for #{anchor} in {name(there)}"


def test_every_page_is_in_the_navigation_and_nothing_else_is():
    text = (ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = set(re.findall(r"([\w/-]+\.md)$", text, re.MULTILINE))
    assert listed == {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")}


def test_every_picture_is_small():
    for picture in (ROOT / "docs" / "images").glob("*.png"):
        assert picture.stat().st_size < 400_000, f"{name(picture)} is larger than 400 kB"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_verb_exists(page):
    text = page.read_text(encoding="utf-8")
    quoted = " \n ".join([*re.findall(r"`([^`\n]+)`", text), *(body for _, body in FENCE.findall(text))])
    for verb in VERB.findall(quoted):
        assert verb in {**JOBS, **QUESTIONS}, f"{name(page)}: tumortwin {verb}"


def commands() -> list[tuple[str, str]]:
    """(page, line) of every `tumortwin ...` line of a `sh` block."""
    found = []
    for page in PAGES:
        for language, body in FENCE.findall(page.read_text(encoding="utf-8")):
            if language == "sh":
                lines = [line.partition("  #")[0].strip() for line in body.splitlines()]
                found += [(name(page), line) for line in lines if line.startswith("tumortwin ")]
    return found


def test_there_are_commands_to_check():
    assert len(commands()) > 20


@pytest.mark.parametrize("page, line", commands(), ids=lambda x: x if str(x).startswith("tumortwin") else "")
def test_every_command_can_be_typed(page, line):
    arguments = parse_arguments(shlex.split(line)[1:])
    if arguments.verb == "reproduce":
        assert all((ROOT / "experiments" / n / "run.py").is_file() for n in arguments.names), f"{page}: {line}"
    if arguments.verb == "configs":
        assert set(arguments.names) <= set(groups()), f"{page}: {line}"
    if not arguments.overrides:
        return
    task = arguments.verb if arguments.verb in group_options("task") else "twin"
    overrides = [f"task={task}", *arguments.overrides]
    for job in one_of_each(overrides) if arguments.multirun else [overrides]:
        compose(job)


def test_a_configuration_of_ones_own_composes_as_the_page_shows_it(tmp_path):
    for page, group, option in (("configs", "prior", "slow"), ("plan-a-schedule", "objective", "progression")):
        text = (ROOT / "docs" / "use" / f"{page}.md").read_text(encoding="utf-8")
        assert f"mine/{group}/{option}.yaml" in text and f"{group}={option}" in text
        shown = next(body for language, body in FENCE.findall(text) if language == "yaml")
        file = tmp_path / group / f"{option}.yaml"
        file.parent.mkdir()
        file.write_text(shown, encoding="utf-8")
        compose([f"{group}={option}"], config_dirs=[tmp_path])
    config = compose(["prior=slow"], config_dirs=[tmp_path]).config
    assert config.prior.mechanisms.proliferation.rate.median == 0.008
    assert config.prior.mechanisms.proliferation.rate.low == 0.002  # the rest is glioma's


def test_a_cancer_of_ones_own_composes_and_its_model_is_one_as_the_page_shows_it(tmp_path):
    text = (ROOT / "docs" / "use" / "add-a-cancer.md").read_text(encoding="utf-8")
    blocks = dict(FENCE.findall(text))
    (tmp_path / "cancer").mkdir()
    (tmp_path / "cancer" / "thyroid.yaml").write_text(blocks["yaml"], encoding="utf-8")
    line = ["cancer=thyroid", "table.declaration=mine.yaml"]
    assert " ".join(line) in text
    config = compose(line, config_dirs=[tmp_path]).config
    assert (config.name, config.pipeline.name) == ("thyroid_own", "cohort")
    law = instantiate(config.model.law)
    varying = instantiate(flatten(config.population.varying))
    assert float(law.decay_rate) == pytest.approx(0.01) and set(varying) == {"decay_rate", "growth_rate", "start"}
    space: dict = {}
    exec(compile(blocks["python"], "add-a-cancer.md", "exec"), space)
    found = simulate_compartment(space["Linear"](2.0, 10.0), jnp.asarray([[0.0, 5.0]])).burden
    assert found.tolist() == [[10.0, 20.0]]


def test_the_example_of_planning_runs_and_keeps_its_limits(capsys):
    text = (ROOT / "docs" / "use" / "plan-a-schedule.md").read_text(encoding="utf-8")
    (code,) = (body for language, body in FENCE.findall(text) if language == "python")
    space: dict = {}
    exec(compile(code, "plan-a-schedule.md", "exec"), space)
    assert "drug: 1 on day" in capsys.readouterr().out
    assert all(entry["violation"] <= 0.0 for entry in space["found"].constraints)
    assert space["picture"].png.startswith(b"\x89PNG") and "plan" in space["picture"].caption


@pytest.mark.slow
def test_the_examples_of_hybrid_models_run_and_the_closure_learns(capsys):
    text = (ROOT / "docs" / "use" / "hybrid-models.md").read_text(encoding="utf-8")
    space: dict = {}
    for language, body in FENCE.findall(text):
        if language == "python":
            exec(compile(body, "hybrid-models.md", "exec"), space)
    said, unknowns, factor = capsys.readouterr().out.splitlines()
    assert "in truth 0.50" in said and abs(space["said"] - 0.5) < 0.05
    assert unknowns == f"{space['closure'].network.weights.size + 1} unknowns" and float(factor) == 1.0


def test_the_example_of_the_readme_runs(capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = (body for language, body in FENCE.findall(text) if language == "python")
    space: dict = {}
    exec(compile(code, "README.md", "exec"), space)
    assert capsys.readouterr().out
    mass, dose, step = space["mass"], 2.0, 0.02
    slope = (float(mass(dose + step)) - float(mass(dose - step))) / (2.0 * step)
    gradient = float(jax.grad(mass)(dose))
    assert slope < 0.0 and abs(gradient / slope - 1.0) < COMPARED
