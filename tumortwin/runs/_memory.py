"""Memory that a finished part of a run no longer needs."""

import ctypes
import gc
import os
import sys

_M_ARENA_MAX = -8  # malloc.h
_ARENAS = 2


def keep_arenas_few() -> None:
    """Lets threads share two of glibc's arenas, before they are started.

    Every thread of the compiler and of a solve would have one of its own, and what is freed in one is lost to the
    others: 1.75 in place of 1.94 GB at the peak of the embedded patient's run, in the same time. MALLOC_ARENA_MAX in
    the environment wins.
    """
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        choose = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc only: musl has none
        if choose is not None:
            choose(_M_ARENA_MAX, _ARENAS)


def release_memory(*, programs: bool = False) -> None:
    """Gives freed memory back to the system; with `programs` compiled programs are forgotten first.

    The programs of a calibration and the working memory of their compilation, which glibc keeps in pieces, are some
    900 MB, which the next part would come on top of. A program that is needed again is compiled again. Beyond glibc
    there is nothing to give back.
    """
    if programs:
        import jax

        jax.clear_caches()
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only: musl has none
        if trim is not None:
            trim(0)
