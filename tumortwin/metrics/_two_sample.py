"""Do two samples come from one distribution? A classifier tries to tell them apart."""

import numpy as np
from jaxtyping import Float

FOLDS = 5
WIDTH = 10  # hidden units of each layer, a parameter


def classifier_two_sample(
    first: Float[np.ndarray, "draw parameter"], second: Float[np.ndarray, "other width"], *, seed: int = 0
) -> float:
    """Cross-validated share of draws that a network assigns to the sample they come from: C2ST.

    0.5 where the samples cannot be told apart, 1 where they do not overlap. For two distributions p and q the best
    that any classifier can reach is `1/2 + TV(p, q) / 2`, half of one plus the total variation distance; two normals
    of unit variance whose means are d apart: Phi(d / 2).

    Both samples are standardized by the first; a network of two layers, 10 units a parameter each; five folds. The
    larger sample is cut to the size of the smaller, so that guessing scores a half.

    **Good values:** 1,000 draws or more of each, independent (thin chains, resample weighted draws). Below 0.6 counts
    as equal in studies of neural posteriors.

    **Limits:** (for convenience) draws that repeat, as resampled ones do, are told apart by their repetition: give
    distinct ones.

    **Raises:** `ValueError` for samples of different width, fewer than ten draws, or values that are not finite.

    **Reference:** Lopez-Paz and Oquab, ICLR (2017); Lueckmann et al., AISTATS (2021).
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    a, b = np.asarray(first, float), np.asarray(second, float)
    size = min(len(a), len(b))
    if (
        a.ndim != 2
        or a.shape[1:] != b.shape[1:]
        or size < 2 * FOLDS
        or not (np.isfinite(a).all() and np.isfinite(b).all())
    ):
        raise ValueError(
            f"required: two finite samples [draw parameter] of one width, {2 * FOLDS} draws or more; "
            f"received: {a.shape} and {b.shape}"
        )
    random = np.random.default_rng(seed)
    a, b = (x if len(x) == size else x[random.permutation(len(x))[:size]] for x in (a, b))
    center, scale = a.mean(axis=0), a.std(axis=0)
    both = (np.concatenate([a, b]) - center) / np.where(scale > 0, scale, 1.0)
    label = np.repeat([0, 1], size)
    width = WIDTH * a.shape[1]
    classifier = MLPClassifier(
        (width, width), early_stopping=True, n_iter_no_change=15, max_iter=500, random_state=seed
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    return float(np.mean(cross_val_score(classifier, both, label, cv=folds, scoring="accuracy")))
