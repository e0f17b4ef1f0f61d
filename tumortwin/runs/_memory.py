"""Memory that a finished part of a run no longer needs."""

import ctypes
import gc
import sys


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
