"""Strict numerics for every test: 64-bit, no silent rank promotion; warnings are errors (pyproject.toml).

What is compiled is kept in `.pytest_cache`, in a folder for each worker (JAX writes its entries in place: another
worker could read half of one). Tests compile many programs and run each for a moment: two thirds of their time was
XLA's, so its optimization is off here, a third less time in all. `JAX_DISABLE_MOST_OPTIMIZATIONS=0 make test` tests
what a run executes, as the questions of `tumortwin reproduce` and the benchmarks always do. With optimization off, the
older way of writing fused loops (`xla_cpu_use_fusion_emitters=false`) saves another third: slower, sooner compiled.
"""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("EQX_ON_ERROR", "nan")  # as in a run: a program that calls back into Python is not kept
FLAGS = ["--xla_cpu_prefer_vector_width=512"]
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1":
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
for flag in FLAGS:
    if flag.partition("=")[0] not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
CACHE = Path(__file__).resolve().parents[1] / ".pytest_cache" / "programs" / WORKER
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
# Begun first: the longest files, of few tests. Last, one of them would keep one worker busy and the other idle.
LONGEST = (
    "test_pipeline.py",
    "test_cli_kill_nuts.py",
    "test_cohort_pipeline.py",
    "test_population.py",
    "test_cli_kill.py",
    "test_twin_recommend.py",
    "test_twin_forecast.py",
    "test_samplers.py",
)


MAPS = Path("/proc/self/maps")
MOST_MAPS = 30_000  # Linux gives a process 65,530; every compiled program takes some, and one too many is a crash


@pytest.fixture(autouse=True, scope="module")
def few_programs_in_memory():
    """Compiled programs of finished files are let go before they are too many for one process."""
    yield
    if MAPS.is_file() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()


def pytest_configure(config: pytest.Config) -> None:
    """Files are dealt out in the order below; left to itself, `--dist loadfile` ends with those of few tests."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first; tests marked `gpu` are skipped where there is none."""
    rank = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and jax.default_backend() == "cpu":
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
