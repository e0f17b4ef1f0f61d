"""How a command is compiled that is run for what it leaves behind."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="module")
def compiled_quickly() -> Iterator[None]:
    """LLVM does not optimize, here and in processes begun from here: compilation is most of the time of a command on a
    tiny patient. What optimized programs compute is tested in the other folders, so none of these is left to them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)
        jax.clear_caches()
