"""`--help` is quick because it imports nothing heavy, and the wheel carries the configurations."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tumortwin.io import table_layouts

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("jax", "hydra", "omegaconf", "numpy", "rich")


def test_help_imports_nothing_heavy():
    code = "import sys\nfrom tumortwin.cli import main\nmain(['--help'])\n"
    code += f"print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_the_wheel_carries_the_configurations(tmp_path):
    pytest.importorskip("hatchling")
    if not (ROOT / "README.md").is_file():
        pytest.skip("no README.md yet")
    code = "import hatchling.build, sys\nprint(hatchling.build.build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    configurations = {
        f"tumortwin/_configs/{p.relative_to(ROOT / 'configs')}" for p in (ROOT / "configs").rglob("*.yaml")
    }
    assert configurations and configurations <= names
    assert "tumortwin/cli.py" in names and "tumortwin/_data/registry.yaml" in names
    assert not [n for n in names if n.startswith(("tests/", "experiments/"))]
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "installed")
    code = "import sys; sys.path.insert(0, sys.argv[1])\nfrom tumortwin.config import config_dir, compose\n"
    code += "print(config_dir()); print(compose(['seed=3']).config.seed)\n"
    code += "from tumortwin.io import read_registry, table_layouts\nprint(len(read_registry()), *table_layouts())"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "installed")], capture_output=True, text=True, cwd=tmp_path
    )
    folder, seed, entries, *layouts = done.stdout.split()
    assert [folder, seed] == [str(tmp_path / "installed" / "tumortwin" / "_configs"), "3"], done.stderr
    assert int(entries) > 1 and layouts == list(table_layouts())
