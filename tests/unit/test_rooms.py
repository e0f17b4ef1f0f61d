"""The rules of the house that a program can check: imports point down, files are short, edges stay at the edge."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tumortwin"
GROUND = ("units", "params", "_types", "_errors", "_files", "_paths", "_chunks")
PURE = (
    "geometry", "treatments", "models", "solvers", "observation", "metrics", "inference", "surrogates", "control",
    "twin",
)  # fmt: skip
EDGES = ("io", "runs", "report", "config", "cli")
RANK = {name: rank for rank, names in enumerate([GROUND, *((n,) for n in PURE + EDGES)]) for name in names}
PURE_PACKAGES = {
    "jax", "equinox", "diffrax", "lineax", "optimistix", "optax", "numpyro", "blackjax", "jaxtyping", "numpy",
}  # fmt: skip
WITH_SCIPY = ("metrics", "twin", "inference", "surrogates", "control")
WITH_SKLEARN = ("metrics",)  # the machine-learning baseline; imported where it is used
WITH_CMAES = ("control",)  # the derivative-free baseline; imported where it is used
WITH_FLOWS = ("surrogates",)  # normalizing flows
KEPT_OUT = (
    "nibabel",
    "hydra",
    "matplotlib",
    "xarray",
    "SimpleITK",
    "nilearn",
    "pandas",
    "pandera",
    "pooch",
    "zarr",
    "sklearn",
    "cmaes",
)
MAX_LINES = 600


def sources(folder: Path = PACKAGE) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def room(path: Path) -> str:
    """The room of a file: `cli_jobs.py` belongs to `cli`."""
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "cli" if name.startswith("cli_") else name


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, whether at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module == "tumortwin":
                yield from (f"tumortwin.{alias.name}" for alias in node.names)
            else:
                yield node.module
        elif isinstance(node, ast.ImportFrom):
            yield f"tumortwin.<relative import in {path.name}>"


def violations(path: Path) -> Iterator[str]:
    here = room(path)
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "tumortwin":
            there = rest.partition(".")[0]
            there = "cli" if there.startswith("cli_") else there
            if there.startswith("__"):
                continue
            if there not in RANK or RANK[there] > RANK[here]:
                yield f"{path.relative_to(ROOT)} ({here}) imports {name}"
        elif here in GROUND + PURE and top not in sys.stdlib_module_names:
            allowed = (top == "scipy" and here in WITH_SCIPY) or (top == "sklearn" and here in WITH_SKLEARN)
            allowed = allowed or (top == "cmaes" and here in WITH_CMAES)
            allowed = allowed or (top in ("flowjax", "paramax") and here in WITH_FLOWS)
            if top not in PURE_PACKAGES and not allowed:
                yield f"{path.relative_to(ROOT)} (a pure room) imports {name}"


def test_every_file_is_in_a_known_room():
    strays = {room(p) for p in sources()} - set(RANK) - {"__init__"}
    assert not strays, f"rooms are fixed (architecture, section 3); found {sorted(strays)}"


def test_imports_point_down():
    files = [p for p in sources() if room(p) != "__init__"]
    assert len(files) > len(RANK)
    found = [v for path in files for v in violations(path)]
    assert not found, "\n".join(found)


def test_the_scan_sees_a_violation(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "models").mkdir()
    bad = tmp_path / "models" / "_bad.py"
    bad.write_text(
        "def f():\n    from tumortwin.inference import Prior\n    import nibabel\nfrom tumortwin import io\n"
    )
    assert len(list(violations(bad))) == 3


def test_importing_pure_rooms_loads_no_edge_library():
    present = [r for r in PURE if (PACKAGE / r / "__init__.py").is_file()]
    code = (
        f"import sys, tumortwin\n{''.join(f'import tumortwin.{r}' + chr(10) for r in present)}"
        f"print([m for m in {KEPT_OUT!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("folder", ["tumortwin", "tests", "experiments"])
def test_files_are_short(folder):
    long = {
        str(p.relative_to(ROOT)): n
        for p in sources(ROOT / folder)
        if (n := len(p.read_text().splitlines())) > MAX_LINES
    }
    assert not long, f"more than {MAX_LINES} lines: {long}"


def _calls(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def test_what_belongs_to_one_room_stays_there():
    homes = {
        "jax.config.update": {"runs", "cli"},
        "diffeqsolve": {"solvers"},
        "diffrax.diffeqsolve": {"solvers"},
        "dfx.diffeqsolve": {"solvers"},
        "hydra.utils.instantiate": {"config"},
        "super": set(),
        "jnp.nan_to_num": set(),
    }
    found = [
        f"{path.relative_to(ROOT)} calls {call}"
        for path in sources()
        for call in _calls(path)
        if call in homes and room(path) not in homes[call]
    ]
    assert not found, "\n".join(found)


def test_a_helper_has_one_home():
    """Two functions of one name drift apart: a distance to centers here, to edges there."""
    helpers = {"atomic_path", "write_text", "disk_full", "dice", "signed_distance", "block_mean", "quantile"}
    found = [
        node.name
        for path in sources()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name in helpers
    ]
    assert sorted(found) == sorted(helpers)


def test_no_pickle_is_imported():
    banned = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    found = [f"{p.relative_to(ROOT)}: {n}" for p in sources() for n in imports(p) if n.partition(".")[0] in banned]
    assert not found, "\n".join(found)
