"""The lesions of 466 patients to a posterior, in a fresh process: `python -m experiments.benchmarks.lesions [ROOT]`."""

import json
import sys

if __name__ == "__main__":
    import jax
    from numpyro.diagnostics import effective_sample_size

    from experiments.laleh2022.study import sampling_time
    from tumortwin.io import find_data_root
    from tumortwin.runs import configure_backend

    configure_backend()
    root = sys.argv[1] if len(sys.argv) > 1 else str(find_data_root(None))
    posterior, seconds = sampling_time(root, key=jax.random.key(0))
    # `ess` is that of the worst direction in which the sampler moves; parameters are what is read.
    parameters = min(float(effective_sample_size(values).min()) for values in posterior.draws.values())
    named = {name: posterior.diagnostics[name] for name in ("ess", "r_hat")}
    print(json.dumps({"seconds": seconds, "parameters": parameters, **named}))
