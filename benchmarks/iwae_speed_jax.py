"""The JAX side of ``benchmarks.iwae_speed``: the same estimate as a streamed loop, jitted as one program. Imports JAX and numpy alone.

Reads the weights and images from the file it is given; then each line on the standard input is one timed pass, answered by a line of JSON.
"""

from __future__ import annotations

import json
import math
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np


@partial(jax.jit, static_argnames=("steps", "chunk"))
def estimate(w: dict[str, jax.Array], x: jax.Array, key: jax.Array, *, steps: int, chunk: int) -> jax.Array:
    """log (1/K) sum_k w_k of images x [B, 784], K = steps * chunk: x is encoded once, the samples stream through a scan."""
    h = jax.nn.relu(x @ w["e1"] + w["e1b"])
    mu, log_variance = jnp.split(h @ w["e2"] + w["e2b"], 2, -1)
    log_scale = 0.5 * log_variance
    scale = jnp.exp(log_scale)

    def step(log_sum: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        eps = jax.random.normal(key, (chunk, *mu.shape))
        z = mu + scale * eps
        logits = jax.nn.relu(z @ w["d1"] + w["d1b"]) @ w["d2"] + w["d2b"]
        log_px = (x * logits - jax.nn.softplus(logits)).sum(-1)
        log_w = log_px + (0.5 * (eps * eps - z * z) + log_scale).sum(-1)
        return jnp.logaddexp(log_sum, jax.nn.logsumexp(log_w, 0)), None

    log_sum, _ = jax.lax.scan(step, jnp.full(x.shape[0], -jnp.inf), jax.random.split(key, steps))
    return log_sum - math.log(steps * chunk)


def main() -> None:
    path, samples, chunk, block = sys.argv[1], *map(int, sys.argv[2:])
    loaded = np.load(path)
    w = {name: jnp.asarray(loaded[name]) for name in loaded.files if name != "x"}
    x = jnp.asarray(loaded["x"])
    for number, _ in enumerate(sys.stdin):
        start, busy = time.perf_counter(), time.process_time()
        keys = jax.random.split(jax.random.key(number), len(x) // block)
        rows = [estimate(w, x[i * block : (i + 1) * block], key, steps=samples // chunk, chunk=chunk) for i, key in enumerate(keys)]
        mean = float(jnp.concatenate(rows).mean())
        seconds, cpu = time.perf_counter() - start, time.process_time() - busy
        # not getrusage, which counts the parent's peak too
        memory = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
        print(json.dumps({"seconds": seconds, "cpu": cpu, "mean": mean, "memory": memory, "version": jax.__version__}), flush=True)


if __name__ == "__main__":
    main()
