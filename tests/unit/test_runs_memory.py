"""Freed memory goes back to the system."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tumortwin.runs import release_memory

ROOT = Path(__file__).resolve().parents[2]
GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")


def resident() -> float:
    """Resident memory of this process [MB]."""
    (line,) = (row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(not GLIBC, reason="only glibc keeps freed memory and can be told to return it")
def test_scattered_free_memory_is_returned():
    pieces = [np.ones(12_000) for _ in range(3000)]  # 96 kB each: too small for a mapping of their own
    last = pieces[-1]  # holds the end of the heap
    full = resident()
    pieces.clear()
    release_memory()
    assert full - resident() > 150 and last[0] == 1.0


ARENAS = """
import ctypes, sys, threading
from tumortwin.runs._memory import keep_arenas_few
if sys.argv[1] == "few":
    keep_arenas_few()
c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
all_there = threading.Barrier(6)
def allocate():
    all_there.wait()  # at once, or threads would follow one another in the same arena
    c.malloc(ctypes.c_size_t(1000))
    all_there.wait()
threads = [threading.Thread(target=allocate) for _ in range(6)]
[t.start() for t in threads]
[t.join() for t in threads]
c.fopen.restype = ctypes.c_void_p
file = c.fopen(sys.argv[2].encode(), b"w")
c.malloc_info(0, ctypes.c_void_p(file))
c.fclose(ctypes.c_void_p(file))
"""


@pytest.mark.skipif(not GLIBC, reason="only glibc has arenas")
def test_threads_share_two_arenas_unless_the_environment_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    found = {}
    for name, limit in (("many", None), ("few", None), ("few", "5")):
        file = tmp_path / f"{name}{limit}"
        environment = {**os.environ, **({} if limit is None else {"MALLOC_ARENA_MAX": limit})}
        subprocess.run([sys.executable, "-c", ARENAS, name, str(file)], check=True, env=environment, cwd=ROOT)
        found[file.name] = file.read_text().count("<heap nr=")
    assert found["fewNone"] <= 2 < found["manyNone"] and found["few5"] > 2
