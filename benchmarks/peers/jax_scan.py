"""JAX: a whole epoch as one jitted scan, data on the device, optax. Imports neither torch nor vaekit."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

BATCH = 128


def layer(key: jax.Array, n: int, m: int) -> dict[str, jax.Array]:
    w, b = jax.random.split(key)
    bound = n**-0.5
    return {"w": jax.random.uniform(w, (n, m), minval=-bound, maxval=bound), "b": jax.random.uniform(b, (m,), minval=-bound, maxval=bound)}


def apply(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ p["w"] + p["b"]


def loss(params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
    """-ELBO, mean over the batch."""
    mu, log_variance = jnp.split(apply(params["e2"], jax.nn.relu(apply(params["e1"], x))), 2, -1)
    z = mu + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mu.shape)
    logits = apply(params["d2"], jax.nn.relu(apply(params["d1"], z)))
    log_px = (x * logits - jax.nn.softplus(logits)).sum(-1)
    kl = 0.5 * (jnp.exp(log_variance) + mu**2 - 1 - log_variance).sum(-1)
    return (kl - log_px).mean()


def main() -> None:
    data, epochs = np.load(sys.argv[1]), int(sys.argv[2])
    train, test = jnp.asarray(data["train"]), jnp.asarray(data["test"])
    keys = jax.random.split(jax.random.key(int(sys.argv[3])), 5)
    sizes = {"e1": (784, 400), "e2": (400, 40), "d1": (20, 400), "d2": (400, 784)}
    params = {name: layer(key, n, m) for key, (name, (n, m)) in zip(keys, sizes.items(), strict=False)}
    optimiser = optax.adam(1e-3)
    steps = len(train) // BATCH

    def step(carry: Any, inputs: Any) -> tuple[Any, jax.Array]:
        params, state = carry
        index, key = inputs
        value, grads = jax.value_and_grad(loss)(params, train[index], key)
        updates, state = optimiser.update(grads, state)
        return (optax.apply_updates(params, updates), state), value

    @jax.jit
    def epoch(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        order, noise = jax.random.split(key)
        index = jax.random.permutation(order, len(train))[: steps * BATCH].reshape(steps, BATCH)
        return jax.lax.scan(step, carry, (index, jax.random.split(noise, steps)))

    carry, seconds = (params, optimiser.init(params)), []
    for key in jax.random.split(keys[-1], epochs):
        start = time.perf_counter()
        carry, values = epoch(carry, key)
        values.block_until_ready()
        seconds.append(time.perf_counter() - start)
    bound = -float(jax.jit(loss)(carry[0], test, jax.random.key(1)))
    print(json.dumps({"seconds": seconds, "bound": bound, "version": f"jax {jax.__version__}, optax {optax.__version__}"}))


if __name__ == "__main__":
    main()
