"""Encoder, decoder and score as plain functions of tensors, with every random number an input."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit import noise
from vaekit.apps.export.layout import Field, Layout, described, event_wide, look
from vaekit.bounds import iwae
from vaekit.dist import centre
from vaekit.errors import InputError
from vaekit.evaluate.importance import require_likelihood
from vaekit.models.core import LatentModel, Trace
from vaekit.models.picks import Level
from vaekit.types import Batch

__all__ = ["PARTS", "Part", "PartModule", "build"]

Part = Literal["encoder", "decoder", "score"]
"""Which part of a model is exported."""
PARTS: tuple[Part, ...] = ("encoder", "decoder", "score")
"""All of them, in the order in which they are written."""


class PartModule(nn.Module, abc.ABC):
    """One part as a module of tensors alone.

    Implementing a PartModule: ``forward`` from the tensors of ``inputs`` to those of ``outputs``.
    """

    inputs: tuple[Field, ...]
    outputs: tuple[str, ...]

    def __init__(self, model: LatentModel) -> None:
        super().__init__()
        self.model = model

    @abc.abstractmethod
    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The tensors of ``inputs`` in their order, with shapes as their `Field` says, -> those named in ``outputs``."""


class Encoder(PartModule):
    """x (with c and mask) -> what describes q(z | x) where every level above is at its centre, ``[B, D]`` each."""

    def __init__(self, model: LatentModel, layout: Layout, batch: Batch) -> None:
        super().__init__(model)
        self.inputs, self.outputs = _data(batch), layout.outputs
        self.named = tuple(field.name for field in self.inputs)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        found: list[dict[str, Tensor]] = []

        def pick(level: int, q: Distribution | None, p: Distribution) -> Level:
            if q is p:
                return _at_centre(p)
            d = p if q is None else q
            wide = event_wide(d) if self.outputs != ("centre",) else {"centre": centre(d)}
            z, *_ = wide.values()
            found.append({name: t.reshape(-1, d.event_shape.numel()) for name, t in wide.items()})
            return _unscored(z.reshape((1,) * (2 - len(d.batch_shape)) + z.shape), q, p)

        self.model.unroll(pick, _batch(self.named, tensors))
        return tuple(torch.cat([level[name] for level in found], -1) for name in self.outputs)


class Decoder(PartModule):
    """z ``[B, D]`` (with c) -> what describes p(x | z), ``[B, *]`` each."""

    def __init__(self, model: LatentModel, layout: Layout, batch: Batch, px: Distribution) -> None:
        super().__init__(model)
        x = batch.x
        self.layout = layout
        self.inputs = (
            Field("z", (batch.size, layout.latent), 0, _dtype(x), "latents, the levels joined from the top down"),
            *(field for field in _data(batch) if field.name == "c"),
        )
        self.outputs = tuple(described(px))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        zs = iter(self.layout.split(tensors[0]))
        context = tensors[1] if len(tensors) > 1 else None
        _, px = self.model.unroll(lambda level, q, p: _at_centre(p) if q is p else _unscored(next(zs), q, p), None, context)
        found = described(px)
        return tuple(found[name][0] for name in self.outputs)


class Score(PartModule):
    """x (with c and mask) and noise -> the importance-weighted estimate of log p(x), nats ``[B]``."""

    outputs = ("log_px",)

    def __init__(self, model: LatentModel, batch: Batch, k: int, draws: tuple[Draw, ...]) -> None:
        super().__init__(model)
        self.k = k
        self.draws = draws
        data = _data(batch)
        self.named = tuple(field.name for field in data)
        dtype = _dtype(batch.x)
        noises = []
        for name, (kind, meaning) in NOISE.items():
            n = sum(math.prod(draw.event) for draw in draws if draw.kind == kind)
            noises += [Field(name, (k, batch.size, n), 1, dtype, f"{meaning}, K = {k} samples of each example")] if n else []
        self.inputs = (*data, *noises)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return (iwae(self.trace(*tensors).log_w),)

    def trace(self, *tensors: Tensor) -> Trace:
        """The samples z_k and what is known of them."""
        data, noises = tensors[: len(self.named)], tensors[len(self.named) :]
        source = Given(self.draws, {field.name: t for field, t in zip(self.inputs[len(self.named) :], noises, strict=True)})
        with noise.drawn_by(source):
            return self.model.infer(_batch(self.named, data), self.k)


NOISE = {"eps": ("normal", "independent N(0, 1) numbers"), "u": ("uniform", "independent uniform numbers in [0, 1)")}


@dataclass(frozen=True)
class Draw:
    """One request for noise ``[K, B, *event]``."""

    kind: noise.Kind
    event: tuple[int, ...]


class Given:
    """Noise that was given: each request takes the next numbers of its kind."""

    def __init__(self, draws: tuple[Draw, ...], given: dict[str, Tensor]) -> None:
        self.left = list(draws)
        self.given = {NOISE[name][0]: t for name, t in given.items()}
        self.used = dict.fromkeys(self.given, 0)

    def __call__(self, kind: noise.Kind, shape: tuple[int, ...], event_dim: int, like: Tensor) -> Tensor:
        event = self.left.pop(0).event
        n = math.prod(event)
        start = self.used[kind]
        self.used[kind] += n
        return self.given[kind][..., start : start + n].reshape(shape)


def build(part: Part, model: LatentModel, batch: Batch, k: int) -> PartModule:
    """A part of the model as a program, in evaluation mode. A score has ``k`` importance samples.

    Raises:
        InputError: a model without a posterior; a score of one without a likelihood, or whose q(z | x) cannot be drawn from given noise.
    """
    layout, seen = look(model, batch)
    if part == "encoder":
        return Encoder(model, layout, batch)
    if part == "decoder":
        return Decoder(model, layout, batch, seen.px)
    require_likelihood(seen)
    return Score(model, batch, k, _requests(model, batch, k, layout))


def _requests(model: LatentModel, batch: Batch, k: int, layout: Layout) -> tuple[Draw, ...]:
    """The noise that K samples take, as the model itself asks for it."""
    made: list[Draw] = []
    names = ", ".join(layout.posteriors)

    def record(kind: noise.Kind, shape: tuple[int, ...], event_dim: int, like: Tensor) -> Tensor:
        if shape[:2] != (k, batch.size):
            raise InputError(f"q(z | x) = {names} is drawn with noise {list(shape)}, which is not [K, B, *] = {[k, batch.size]} and more")
        made.append(Draw(kind, shape[2:]))
        draw: Callable[..., Tensor] = torch.randn if kind == "normal" else torch.rand
        return draw(shape, dtype=like.dtype, device=like.device, generator=torch.Generator(like.device).manual_seed(len(made)))

    before = torch.get_rng_state()
    with noise.drawn_by(record):
        model.infer(batch, k)
    if not torch.equal(before, torch.get_rng_state()):
        raise InputError(f"q(z | x) = {names} draws random numbers of its own, which cannot be made an input")
    return tuple(made)


def _unscored(z: Tensor, q: Distribution | None, p: Distribution) -> Level:
    """A level whose densities nobody will ask for, so that they need not be exported."""
    return Level(z, p, q, z.new_zeros(()), None)


def _at_centre(p: Distribution) -> Level:
    """A level that is no code of x, as values that nobody saw: it goes neither in nor out."""
    z = centre(p)
    return _unscored(z.reshape((1,) * (2 - len(p.batch_shape)) + z.shape), p, p)


def _data(batch: Batch) -> tuple[Field, ...]:
    """The inputs that a batch is."""
    meanings = {
        "x": "the data as the model sees them: rows of a data set as its Split.batch prepares them",
        "c": "the context that the model is conditioned on",
        "mask": "true where x is observed",
    }
    named = {"x": batch.x, "c": batch.c, "mask": batch.mask}
    return tuple(Field(name, tuple(t.shape), 0, _dtype(t), meanings[name]) for name, t in named.items() if t is not None)


def _batch(names: tuple[str, ...], tensors: tuple[Tensor, ...]) -> Batch:
    return Batch(**dict(zip(names, tensors, strict=True)))


def _dtype(t: Tensor) -> str:
    return str(t.dtype).removeprefix("torch.")
