"""The explorer's page in a real Chromium, opened from the disk: the MNIST recipe's network with 60,000 points, and a small run.

Frames are counted by what the page itself has drawn and decoded, on a machine without a graphics card.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from browser import Opened, opened
from vaekit import VAE, Conditional, commands, heads, priors
from vaekit.apps.export.parts import build
from vaekit.data.core import DataSet, Split
from vaekit.dist import centre
from vaekit.explore import collect, explore, html
from vaekit.models.core import LatentModel
from vaekit.models.picks import given
from vaekit.recipes import mnist
from vaekit.recipes.core import Recipe
from vaekit.types import Batch

pytest.importorskip("onnxruntime")

POINTS = 60_000
HOSTILE = "</script><img src=x onerror=alert(1)>\n\u202etxt.exe"
ONE_BY_ONE = "async (zs) => { const found = []; for (const z of zs) found.push(Array.from(await explorer.decode(z))); return found; }"
PAD = "Array.from(document.getElementById('pad').getContext('2d').getImageData(0, 0, 8, 8).data).filter((_, i) => i % 4 === 0)"
AXE = Path(__file__).resolve().parents[1] / "explorer" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def large(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LatentModel, Split]:
    """784-400-20 and 60,000 points: blurred squares, a class for each place of them; class 3 has a hostile name."""
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)
    label = torch.randint(10, (POINTS,), generator=g)
    x = torch.randint(0, 40, (POINTS, 1, 28, 28), generator=g, dtype=torch.uint8)
    for n in range(10):
        row, column = divmod(n, 4)
        x[label == n, :, 7 * row : 7 * row + 7, 7 * column : 7 * column + 7] += 200
    split = Split(x, label=label)
    names = tuple(HOSTILE if n == 3 else str(n) for n in range(10))
    data = DataSet("squares", train=split, test=split.head(100), label_names=names)
    model = mnist.example().model
    with torch.no_grad():  # untrained: codes spread out, decoded images with something on them
        model.posterior.net[-1].weight.mul_(20)
        model.likelihood.net[-1].weight.mul_(20)
    path = tmp_path_factory.mktemp("large") / "page.html"
    found = collect(Recipe(model, lambda: data), samples=1)
    path.write_text(html(found, title=HOSTILE, facts={}), encoding="utf-8")
    return path, model, split


@pytest.fixture(scope="module")
def small(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("small")
    run = commands.train("digits", {"epochs": 3, "hidden": 32, "latent": 6}, out=folder / "run")
    return run.path, explore(run, samples=2, out=folder / "page.html")


def test_it_opens_from_the_disk_and_asks_for_nothing(large: tuple[Path, LatentModel, Split], chromium: Any) -> None:
    path = large[0]
    assert path.stat().st_size < 25e6
    with opened(chromium, path) as found:
        marks = dict(found.page.evaluate("performance.getEntriesByType('mark').map(m => [m.name, m.startTime])"))
        found.page.wait_for_timeout(300)
        print(f"page of {path.stat().st_size / 1e6:.1f} MB: map after {marks['vaekit:map']:.0f} ms, all after {marks['vaekit:all']:.0f} ms")
        assert found.faults == []
        assert marks["vaekit:map"] < 3000
        assert found.page.evaluate("fetch('data:,x').then(() => 'let through', () => 'refused')") == "refused"
        assert any("Content Security Policy" in fault for fault in found.faults)  # the policy bites, and is heard
        assert found.page.text_content("#model-state") == ""


def test_decoding_equals_torch(large: tuple[Path, LatentModel, Split], chromium: Any) -> None:
    path, model, split = large
    z = torch.randn(100, 20, generator=torch.Generator().manual_seed(5))
    batch = split.batch(torch.arange(3))
    with torch.no_grad():
        expected = centre(model.trace(given(z[None])).px)[0].flatten(1)
        q = model.posterior(batch.x)
    assert expected.std() > 0.1  # not a decoder of one colour
    with opened(chromium, path) as found:
        decoded = torch.tensor(found.page.evaluate(ONE_BY_ONE, z.tolist()))
        together = torch.tensor(found.page.evaluate("async (z) => Array.from(await explorer.decode(z))", z.flatten().tolist())).view(
            100, -1
        )
        encode = "async (x) => { const q = await explorer.encode(x); return [Array.from(q.mean), Array.from(q.std)]; }"
        codes = [found.page.evaluate(encode, x.flatten().tolist()) for x in batch.x]
        placed = torch.tensor(found.page.evaluate("Array.from(explorer.map.z.slice(0, 60))")).view(3, 20)
        centre_at = found.page.evaluate("explorer.map.project(Float32Array.from(explorer.about.mean))")
        about = found.page.evaluate(
            "({ mean: explorer.about.mean, axes: explorer.about.axes, place: [explorer.map.u[1], explorer.map.v[1]] })"
        )
    print(f"decoded in the page, |difference| from torch at most {float((decoded - expected).abs().max()):.1e}")
    assert float((decoded - expected).abs().max()) < 1e-4
    assert float((together - expected).abs().max()) < 1e-4
    order = torch.randperm(POINTS, generator=torch.Generator().manual_seed(0))[:3]
    shown = model.embed(split.batch(order))
    assert torch.allclose(placed, shown, atol=1e-3 * float(shown.abs().max()))
    assert np.allclose(centre_at, 0, atol=1e-4)  # of principal axes
    assert np.allclose(about["place"], (np.array(about["axes"][:2]) @ (placed[1].numpy() - about["mean"])), atol=1e-3)
    mean, std = torch.tensor(codes).unbind(1)
    assert torch.allclose(mean, q.mean, rtol=1e-4, atol=1e-4) and torch.allclose(std, q.variance.sqrt(), rtol=1e-4, atol=1e-4)


def test_frames(large: tuple[Path, LatentModel, Split], chromium: Any) -> None:
    """30 frames a second leave 33 ms to each. Medians, and beside them the frames of the same page doing nothing, for what other processes
    take from a browser that paints without a graphics card is not the page's."""
    with opened(chromium, large[0]) as found:
        page, box = found.page, found.page.locator("#map").bounding_box()
        walk = """async (drag) => {
          const map = document.getElementById("map"), box = map.getBoundingClientRect();
          const at = (n) => ({ clientX: box.left + box.width * (0.5 + 0.3 * Math.cos(n / 9)),
            clientY: box.top + box.height * (0.5 + 0.3 * Math.sin(n / 9)),
            pointerId: 1, pointerType: "mouse", bubbles: true });
          map.setPointerCapture = () => {};
          if (drag) map.dispatchEvent(new PointerEvent("pointerdown", at(0)));
          explorer.draws.length = explorer.times.length = 0;
          const before = explorer.here.count, gaps = [];
          let last = performance.now();
          for (let n = 1; n <= 90; n++) {
            map.dispatchEvent(new PointerEvent("pointermove", at(n)));
            await new Promise(requestAnimationFrame);
            const now = performance.now();
            gaps.push(now - last);
            last = now;
          }
          if (drag) map.dispatchEvent(new PointerEvent("pointercancel", at(0)));
          const idle = [];
          for (let n = 0; n < 40; n++) {
            document.getElementById("status").style.opacity = 0.9 + 0.1 * (n % 2);
            await new Promise(requestAnimationFrame);
            idle.push(performance.now() - last);
            last = performance.now();
          }
          return { idle, gaps, draws: [...explorer.draws], times: [...explorer.times], decoded: explorer.here.count - before };
        }"""
        moved, panned = page.evaluate(walk, False), page.evaluate(walk, True)
        assert box is not None and found.faults == []
    decode, drawing = median(moved["times"]), median(panned["draws"])
    idle, moving, panning = (median(gaps) for gaps in (moved["idle"] + panned["idle"], moved["gaps"], panned["gaps"]))
    print(f"{decode:.2f} ms a decoding, {moved['decoded']} pictures in 90 frames; {drawing:.2f} ms to draw {POINTS} points")
    print(f"a frame takes {moving:.1f} ms with the pointer moving, {panning:.1f} ms panning, {idle:.1f} ms with next to nothing to do")
    assert decode < 15 and drawing < 15
    assert moved["decoded"] >= 60 and len(panned["draws"]) >= 60
    for frame in (moving, panning):
        assert frame < 33 or frame - idle < 15


def test_hostile_words_are_shown_as_text(large: tuple[Path, LatentModel, Split], chromium: Any) -> None:
    with opened(chromium, large[0]) as found:
        page = found.page
        shown = "</script><img src=x onerror=alert(1)>\\n\\u202etxt.exe"
        assert page.text_content("#title") == shown and shown in page.title()
        assert page.locator("#legend bdi").nth(3).text_content() == shown
        assert page.locator("img").count() == 0 and page.locator("script:not([type])").count() == 0
        page.locator("#legend input").nth(3).uncheck()
        page.wait_for_selector("text=9 of 10 labels")
        hidden = POINTS - page.evaluate("explorer.map.visible.reduce((a, b) => a + b, 0)")
        assert hidden == int((large[2].label == 3).sum())  # type: ignore[operator]
        assert found.faults == []


def test_everything_by_keyboard(small: tuple[Path, Path], chromium: Any) -> None:
    with opened(chromium, small[1]) as found:
        page = found.page
        state = "[...explorer.here.z, explorer.map.scale, ...explorer.map.centre]"
        reached = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.className || document.activeElement.tagName"))
        assert {"axis-x", "axis-y", "colour", "others", "map", "zoom-in", "temperature", "file", "tile", "path-add"} - reached <= {
            "tile",
            "path-add",
        }
        page.focus("#map")
        seen = [page.evaluate(state)]
        for key in ("ArrowRight", "ArrowUp", "Shift+ArrowLeft", "+", "-", "0"):
            page.keyboard.press(key)
            page.wait_for_timeout(60)
            seen.append(page.evaluate(state))
            assert seen[-1] != seen[-2], key
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_selector("#film .tile >> nth=8")
        assert page.locator("#film .tile").count() == 9 and page.locator("#film .stop").count() == 2
        page.keyboard.press("Escape")
        page.wait_for_selector("#film .tile", state="detached")
        page.wait_for_selector("#status:has-text('nearest example on the map is labelled')")
        assert found.faults == []


def test_an_image_is_encoded_placed_reconstructed_and_scored(small: tuple[Path, Path], chromium: Any) -> None:
    run, path = small
    _, recipe = commands.load(run, device="cpu")
    with opened(chromium, path) as found:
        page = found.page
        page.click("#pad-example")
        page.wait_for_selector("#own-status:has-text('importance samples')")
        said = page.text_content("#own-status")
        x = page.evaluate(PAD)
        image = (torch.tensor(x).view(1, 1, 8, 8) / 255 * 16).round() / 16
        found.page.click("#pad-go")
        z = torch.tensor(page.evaluate("Array.from(explorer.here.z)"))
        score = page.evaluate("(x) => explorer.score(x)", image.flatten().tolist())
        eps = torch.tensor(page.evaluate("(n) => Array.from(explorer.noise(n))", 64 * 6)).view(64, 1, 6)
        page.wait_for_timeout(100)
        assert found.faults == []
    assert torch.allclose(z, recipe.model.embed(Batch(image))[0], atol=1e-4)
    assert abs(float(eps.mean())) < 0.2 and 0.8 < float(eps.std()) < 1.2 and len(eps.unique()) == eps.numel()
    with torch.no_grad():
        (log_px,) = build("score", recipe.model, Batch(image), 64)(image, eps)
    assert abs(score - float(log_px)) < 1e-3
    assert f"{-score:.1f} nats" in said.replace("−", "-")


def test_sliders_samples_and_axes(small: tuple[Path, Path], chromium: Any) -> None:
    with opened(chromium, small[1]) as found:
        page = found.page
        first = page.locator("#sliders input, #inactive[open] input").first
        d = int((first.get_attribute("id") or "").rpartition("-")[2])
        before = page.evaluate("Array.from(explorer.here.z)")
        first.focus()
        page.keyboard.press("End")
        page.wait_for_timeout(100)
        after = page.evaluate("Array.from(explorer.here.z)")
        assert [i for i in range(6) if after[i] != before[i]] == [d]
        pictures = "[...document.querySelectorAll('#samples canvas')].map(c => c.toDataURL())"
        shown = page.evaluate(pictures)
        assert len(set(shown)) == 24
        page.click("#sample-again")
        page.wait_for_selector("#sample-note:has-text('seed 1')")
        assert page.evaluate(pictures) != shown
        page.evaluate("(t) => { t.value = 0; t.dispatchEvent(new Event('input')); }", page.query_selector("#temperature"))
        page.wait_for_timeout(300)
        assert len(set(page.evaluate(pictures))) == 1  # all at the prior's mean
        page.select_option("#axis-x", label=page.locator("#axis-x option").last.text_content())
        place = page.evaluate("[explorer.map.pointer, explorer.map.project(explorer.here.z)]")
        assert place[0] == place[1]
        for name in ("nats", "width"):
            page.select_option("#colour", name)
            page.wait_for_selector("#legend .scale")
        page.select_option("#others", "mean")
        page.evaluate("explorer.point([0.25, -0.5])")
        lifted = page.evaluate("explorer.map.project(explorer.here.z)")
        assert np.allclose(lifted, [0.25, -0.5], atol=1e-5)
        assert found.faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_can_be_read_by_everybody(small: tuple[Path, Path], chromium: Any, scheme: str, width: int) -> None:
    """axe finds nothing serious; nothing is wider than the screen."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: make explorer")
    with opened(chromium, small[1], viewport={"width": width, "height": 844}, color_scheme=scheme) as found:
        page = found.page
        page.click("#pad-example")
        page.keyboard.press("Escape")
        page.evaluate("explorer.setHere(explorer.here.z, 'map')")
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate(AXE.read_text(encoding="utf-8") + "\n;0")
        report = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        grave = [v for v in report["violations"] if v["impact"] in ("serious", "critical")]
        assert grave == [], json.dumps([[v["id"], v["help"], [n["html"] for n in v["nodes"][:3]]] for v in grave], indent=1)


def odd(name: str) -> tuple[LatentModel, DataSet]:
    """Models and data at the edges of what the page shows."""
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)
    if name == "colour, one dimension, no labels, another prior":
        shape, latent = (3, 6, 5), 1
        q, prior, label = heads.Gaussian(1), priors.GaussianMixture(1, 2), None
    else:  # two dimensions, a posterior without one standard deviation and without a graph of its score
        shape, latent = (1, 4, 4), 2
        q, prior, label = heads.MixtureGaussian(2, 3), priors.StandardNormal(2), torch.arange(30) % 15
    px = heads.GaussianShared(shape)
    posterior = Conditional(nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), q.features)), q, event_dim=3)
    split = Split(2 * torch.rand(30, *shape, generator=g) - 1, label=label)
    return VAE(prior, posterior, Conditional(nn.Linear(latent, px.features), px)), DataSet("odd", train=split, test=split)


@pytest.mark.parametrize("name", ["colour, one dimension, no labels, another prior", "two dimensions, a mixture"])
def test_odd_models_are_shown_too(name: str, chromium: Any, tmp_path: Path) -> None:
    model, data = odd(name)
    path = tmp_path / "a page with spaces #1.html"
    path.write_text(html(collect(Recipe(model, lambda: data), samples=2), title=name), encoding="utf-8")
    with opened(chromium, path) as found:
        page = found.page
        page.evaluate("explorer.point([0.1, 0.2])")
        page.click("#pad-example")
        page.wait_for_selector("#own-status:has-text('on the map')")
        page.click("#sample-again")
        page.wait_for_selector("#samples .tile >> nth=23")
        z = page.evaluate("Array.from(explorer.here.z)")
        x = page.evaluate("async (z) => Array.from(await explorer.decode(z))", z)
        with torch.no_grad():
            expected = centre(model.trace(given(torch.tensor([[z]]))).px)[0, 0].flatten()
        assert torch.allclose(torch.tensor(x), expected, atol=1e-4)
        assert page.locator("#temperature").is_disabled() == name.startswith("colour")
        assert ("not scored" in page.text_content("#own-status")) != name.startswith("colour")
        assert found.faults == []


def test_the_faults_are_heard(tmp_path: Path, chromium: Any) -> None:
    """What the other tests rely on: a request, a console error and an exception are seen."""
    path = tmp_path / "bad.html"
    path.write_text(
        "<html data-state=all><script>new Image().src = 'x.png'; console.error('no'); setTimeout(() => { throw Error('out') })</script>"
    )
    with opened(chromium, path) as found:
        found.page.wait_for_timeout(300)
        assert isinstance(found, Opened)
        heard = " ".join(found.faults)
    assert "request: " in heard and "console error: no" in heard and "error: out" in heard
