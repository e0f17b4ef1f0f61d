"""Freed memory goes back to the system."""

import ctypes
import sys
from pathlib import Path

import numpy as np
import pytest

from tumortwin.runs import release_memory

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
