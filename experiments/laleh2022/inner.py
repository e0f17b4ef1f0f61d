"""Development, without the hidden readings: `python -m experiments.laleh2022.inner [DATA_ROOT]`.

The last two readings of every patient who has six or more are cut off before anything else; of what is left, patients
with four readings or more are forecast two readings ahead, exactly as the experiment does it. Every choice of the model
was made here (and in cross-validation over patients on the same readings).
"""

import sys

import jax
import numpy as np

from experiments.laleh2022.run import judge
from experiments.laleh2022.study import HIDDEN, LEAST, SAMPLER, Cohort, cohort_of, fitted, samples_of
from tumortwin.io import Table, load_table


def training_part(table: Table) -> Table:
    """All readings but the ones that the experiment hides."""
    counts = table.counts("diameter")
    long = [s for s, n in zip(table.subjects, counts, strict=True) if n >= LEAST]
    cut = np.full(len(table.subjects), np.inf)
    rows = table.padded("diameter")
    for i, subject in enumerate(table.subjects):
        if subject in set(long):
            cut[i] = rows.times[i, counts[i] - HIDDEN]
    return table.before(cut)


def inner_cohort(root: str) -> Cohort:
    """The cohort of development."""
    return cohort_of(training_part(load_table("laleh", root)), least=LEAST - HIDDEN)


def main(root: str, seed: int = 0) -> None:
    """Fit, forecast, and print the same numbers as the experiment."""
    cohort, key = inner_cohort(root), jax.random.key(seed)
    posterior, seconds = fitted(cohort, SAMPLER, key=key)
    print(f"seconds {seconds:.0f}", {k: round(v, 3) for k, v in posterior.diagnostics.items()}, posterior.info)
    for verdict in judge(cohort, samples_of(cohort, posterior, 1000, key=key, seed=seed), seed)[0]:
        print(verdict.line(), flush=True)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
