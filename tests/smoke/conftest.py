"""Commands are run here for what they leave behind and what they refuse: each program is compiled for a few calls."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly() -> Iterator[None]:
    """LLVM is told not to optimize, here and in processes begun from here: compilation is most of the time of a command
    on a tiny patient. What the optimized programs compute is tested in the other folders.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)
