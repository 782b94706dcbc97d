"""Checkpoints and weights on disk: whole or not at all, checked when read, never pickled."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save as serialise
from torch import nn

from vaekit import VAE, Conditional, InputError, heads, priors
from vaekit.train import load_weights, save_weights
from vaekit.train.checkpoint import Checkpoints, pack, unpack
from vaekit.train.files import DTYPES, DamagedError, read, write

TENSORS = {
    "matrix": torch.arange(12.0).view(3, 4),
    "transposed": torch.arange(12.0).view(3, 4).T,
    "number": torch.tensor(3.5, dtype=torch.float64),
    "empty": torch.zeros(0, 3),
    "bytes": torch.arange(256, dtype=torch.uint8),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "flags": torch.tensor([True, False]),
    "expanded": torch.ones(1).expand(4),
}
SIZES = (("", (3, 2)), (" number", ()), (" empty", (0, 3)))

CODE = """
from pathlib import Path
import torch
from vaekit.train.files import write
def most():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024
tensors = {{str(n): torch.ones(1024, 1024).t() if n % 2 else torch.ones(1024, 1024) for n in range(16)}}
write(Path({path!r} + "0"), {{"one": torch.ones(3, 4).t()}}, {{}})
before = most()
write(Path({path!r}), tensors, {{}})
print(most() - before)
"""


def test_what_is_written_is_read(tmp_path: Path) -> None:
    value = {"text": "naïve", "number": 0.1 + 0.2, "none": None, "list": [1, [2]]}
    write(tmp_path / "a.safetensors", TENSORS, value)
    tensors, found = read(tmp_path / "a.safetensors")
    assert found == value and tensors.keys() == TENSORS.keys()
    for name, t in TENSORS.items():
        assert torch.equal(tensors[name], t) and tensors[name].dtype == t.dtype
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_a_file_is_the_librarys_own_byte_for_byte(tmp_path: Path) -> None:
    """safetensors, which holds a file in memory twice, is the oracle: all dtypes, empty tensors, scalars, tensors that lie in columns."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"{dtype}"[6:] + size: torch.randint(0, 2, shape, generator=generator).to(dtype) for dtype in DTYPES for size, shape in SIZES
    }
    tensors |= {
        "naïve": torch.ones(2),
        "columns": torch.rand(5, 3, generator=generator).t(),
        "conv": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    write(tmp_path / "a", tensors, {"text": 'é "quoted" \\ \n \x7f'})
    with safe_open(tmp_path / "a", framework="pt") as file:
        theirs = serialise({name: t.contiguous() for name, t in tensors.items()}, file.metadata())
    assert (tmp_path / "a").read_bytes() == theirs


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_is_copied_to_be_written(tmp_path: Path) -> None:
    """64 MiB of tensors, of which one at a time is copied where it lies in columns: 4 MiB."""
    code = CODE.format(path=str(tmp_path / "a"))
    more = float(subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout)
    assert more < 32


def test_every_changed_byte_and_every_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(path, {"a": torch.arange(5.0), "b": torch.tensor([1, 2])}, {"x": 1})
    whole = path.read_bytes()
    for i in range(len(whole)):
        for bit in (1, 128):
            broken = bytearray(whole)
            broken[i] ^= bit
            path.write_bytes(broken)
            with pytest.raises(DamagedError):
                read(path)
        path.write_bytes(whole[:i])
        with pytest.raises(DamagedError):
            read(path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")


def test_tied_tensors_are_stored_once_and_load_into_both_names(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(3, 3)
            self.two = nn.Sequential(self.one, nn.ReLU())  # as a prior that holds the posterior

    torch.manual_seed(0)
    model, other = Tied(), Tied()
    save_weights(model, tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        assert sorted(file.keys()) == ["one.bias", "one.weight"]
    load_weights(other, tmp_path / "m.safetensors")
    assert torch.equal(other.two[0].weight, model.one.weight) and other.two[0].weight is other.one.weight


def test_nested_values_survive(tmp_path: Path) -> None:
    value = {
        "state": {0: {"step": torch.tensor(3.0), "old": [torch.ones(2), torch.zeros(1)]}, 7: {}},
        "groups": [{"betas": (0.9, 0.99)}],
        "n": None,
    }
    tensors: dict[str, torch.Tensor] = {}
    packed = pack(value, "o", tensors)
    write(tmp_path / "a", tensors, {"o": packed})
    stored, found = read(tmp_path / "a")
    back = unpack(found["o"], stored)
    assert back["groups"] == [{"betas": (0.9, 0.99)}] and back["n"] is None and list(back["state"]) == [0, 7]
    assert torch.equal(back["state"][0]["old"][0], torch.ones(2)) and back["state"][7] == {}
    with pytest.raises(InputError, match="o/f is a function, which cannot be saved without pickling"):
        pack({"f": lambda: 0}, "o", {})


def model(width: int = 5) -> VAE:
    return VAE(
        priors.StandardNormal(2),
        Conditional(nn.Linear(width, 4), heads.Gaussian(2)),
        Conditional(nn.Linear(2, width), heads.Bernoulli(width)),
    )


def test_weights_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    a, b = model(), model()
    save_weights(a, tmp_path / "model.safetensors")
    load_weights(b, tmp_path / "model.safetensors")
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_weights_that_do_not_fit_say_why(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(InputError, match="there are no weights at .*model.safetensors: train first"):
        load_weights(model(), path)
    save_weights(model(), path)
    with pytest.raises(InputError, match=r"posterior.net.weight has shape \[4, 5\] there and \[4, 6\] here \(and 2 more\)"):
        load_weights(model(6), path)
    with pytest.raises(InputError, match=r"weight is missing there .*and \d+ more"):
        load_weights(nn.Linear(2, 2), path)
    save_weights(nn.Linear(2, 2), path)
    with pytest.raises(InputError, match=r"is missing there \(and \d+ more\); build the model with the settings"):
        load_weights(model(), path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="model.safetensors cannot be read .*train again, or take it from a backup"):
        load_weights(model(), path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="cannot be read"):
        load_weights(model(), path)


def test_plain_safetensors_load_too(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    a, b = model(), model()
    save_file(a.state_dict(), tmp_path / "plain.safetensors")
    load_weights(b, tmp_path / "plain.safetensors")
    assert torch.equal(a.posterior.net.weight, b.posterior.net.weight)


def stored(folder: Path, steps: int = 3, keep: int = 3) -> Checkpoints:
    store = Checkpoints(folder / "checkpoints", keep)
    for step in range(steps):
        store.save(step, {"x": torch.full((100,), float(step))}, {"step": step})
    return store


def names(store: Checkpoints) -> list[int]:
    return [int(path.stem[5:]) for path in store.paths()]


def test_the_newest_are_kept(tmp_path: Path) -> None:
    store = stored(tmp_path, steps=6, keep=2)
    assert names(store) == [4, 5]
    assert (store.load() or pytest.fail())[2]["step"] == 5
    store.save(100_000_000, {"x": torch.ones(1)}, {"step": 100_000_000})  # nine digits sort after eight
    assert names(store) == [5, 100_000_000]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "checkpoints", 3).load() is None


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "text", "plain"])
def test_a_damaged_newest_falls_back_and_is_set_aside(damage: str, tmp_path: Path) -> None:
    store = stored(tmp_path)
    newest = store.paths()[-1]
    data = bytearray(newest.read_bytes())
    if damage == "plain":
        from safetensors.torch import save_file

        save_file({"x": torch.ones(3)}, newest)
    else:
        data[-7] ^= 4
        newest.write_bytes({"cut": data[:-100], "bit": data, "empty": b"", "text": b"{}" * 20}[damage])
    with pytest.warns(UserWarning, match=r"step-00000002.safetensors .*the checkpoint before it is used"):
        path, tensors, value = store.load() or pytest.fail()
    assert path.name == "step-00000001.safetensors" and value["step"] == 1 and float(tensors["x"][0]) == 1
    assert names(store) == [0, 1] and newest.with_name(newest.name + ".damaged").exists()


def test_a_damaged_newest_does_not_push_out_the_good_ones(tmp_path: Path) -> None:
    store = stored(tmp_path)
    store.paths()[-1].write_bytes(b"")
    one = Checkpoints(store.folder, keep=1)
    with pytest.warns(UserWarning, match="cannot be read"):
        one.load()
    one.save(1, {"x": torch.ones(1)}, {"step": 1})
    assert names(one) == [1] and (one.load() or pytest.fail())[2]["step"] == 1


def test_when_all_are_damaged_it_is_an_error(tmp_path: Path) -> None:
    store = stored(tmp_path)
    for path in store.paths():
        path.write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(InputError, match=r"no checkpoint in .* can be read .*start again in a new folder"):
        store.load()
    assert len(store.paths()) == 3  # nothing is moved


def test_a_format_of_another_version(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, 3)
    store.save(0, {}, {"format": 99})
    with pytest.raises(InputError, match="has format 99 and this vaekit reads 1"):
        store.load()


def test_a_write_that_was_killed_leaves_no_trace(tmp_path: Path) -> None:
    store = stored(tmp_path)
    (store.folder / ".step-00000009.safetensors.123.tmp").write_bytes(b"half")
    assert (store.load() or pytest.fail())[2]["step"] == 2
    assert [path.name for path in store.folder.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_earlier_checkpoints(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored(tmp_path)
    before = {path.name: path.read_bytes() for path in store.paths()}

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "write":
        real = open

        def opened(file: Any, *args: Any, **kwargs: Any) -> Any:
            handle = real(file, *args, **kwargs)
            if "b" in (args[0] if args else "") and "w" in args[0]:
                handle = Full(handle)
            return handle

        monkeypatch.setattr("builtins.open", opened)
    else:
        monkeypatch.setattr(os, call, full)
    with pytest.raises(InputError, match="no space left to write .*step-00000003.safetensors"):
        store.save(3, {"x": torch.ones(1000)}, {"step": 3})
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in store.folder.iterdir()} == before


class Full:
    """A file on a full disk."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.close()

    def write(self, data: bytes) -> int:
        self.handle.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")
