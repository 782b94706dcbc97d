"""Choosing on the explorer's page in a real Chromium: the lasso by mouse, finger and keys, and the two kinds of path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from browser import opened
from vaekit import VAE, Conditional, heads, priors
from vaekit.apps.export import Exported, Part, export
from vaekit.data.core import DataSet, Split
from vaekit.errors import InputError
from vaekit.explore import collect, html
from vaekit.explore import contents as contents_module
from vaekit.explore.pack import Block
from vaekit.recipes.core import Recipe

pytest.importorskip("onnxruntime")

N, D = 400, 3
HOSTILE = "<b>two</b>\n\u202etxt"
FACTS = """() => { const e = explorer; return { u: [...e.map.u], v: [...e.map.v], label: [...e.columns.label], nats: [...e.columns.nats],
  outline: e.lasso.outline, chosen: e.map.chosen && [...e.map.chosen], z: [...e.map.z] } }"""


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    q, px = heads.Gaussian(D), heads.Bernoulli((1, 4, 4))
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, q.features))
    model = VAE(priors.StandardNormal(D), Conditional(encoder, q, event_dim=3), Conditional(nn.Linear(D, px.features), px))
    with torch.no_grad():
        encoder[1].weight.mul_(3)  # codes spread out, and scales that differ from place to place
        encoder[-1].weight.mul_(4)
    label = torch.arange(N) % 3
    split = Split(torch.rand(N, 1, 4, 4) ** (0.3 + label.view(N, 1, 1, 1)), label=label)
    data = DataSet("squares", train=split, test=split, label_names=("one", HOSTILE, "three"))
    path = tmp_path_factory.mktemp("choosing") / "page.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents_module, "export", without_score)
        patch.setattr(contents_module, "require_umap", lambda: None)
        patch.setattr(contents_module, "umap_of", lambda z, *, seed: Block.of(bent(z.numpy()).astype("<f4")))
        path.write_text(html(collect(Recipe(model, lambda: data), samples=2, umap=True), title="choosing"), encoding="utf-8")
    return path


def bent(z: Any) -> Any:
    """Stands for UMAP's places: no projection of the codes."""
    return np.stack([z[:, 0] + z[:, 1] ** 2, z[:, 1] * z[:, 2]], 1)


def without_score(*arguments: Any, parts: Sequence[Part], **others: Any) -> Exported:
    """Nothing here needs that graph, and making it takes seconds."""
    if "score" in parts:
        raise InputError("left out")
    return export(*arguments, parts=parts, **others)


def inside(u: np.ndarray[Any, Any], v: np.ndarray[Any, Any], outline: list[list[float]]) -> np.ndarray[Any, Any]:
    """By the winding angle, where the page counts crossings."""
    corners = np.array(outline)
    a = corners[None] - np.stack([u, v], 1)[:, None]
    b = np.roll(a, -1, 1)
    angle = np.arctan2(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0], (a * b).sum(-1)).sum(1)
    return np.abs(angle) > np.pi


def checked(page: Any) -> np.ndarray[Any, Any]:
    """The chosen are those inside the outline, and the words say what they are."""
    page.wait_for_selector("#lasso-shown .tile >> nth=1")
    facts = page.evaluate(FACTS)
    u, v, label, nats = (np.array(facts[name]) for name in ("u", "v", "label", "nats"))
    chosen = np.array(facts["chosen"]).astype(bool)
    assert (chosen == inside(u, v, facts["outline"])).all() and 20 < chosen.sum() < N - 20
    said = page.text_content("#lasso-note").replace("−", "-")
    assert f"{chosen.sum()} of {N} points are chosen (" in said
    expected = {r"chosen \(": 100 * chosen.mean(), "log p\\(x\\) is ": nats[chosen].mean(), "that of all points ": nats.mean()}
    expected |= {
        re.escape(f"{name}: "): 100 * (label[chosen] == n).mean() for n, name in enumerate(("one", "<b>two</b>\\n\\u202etxt", "three"))
    }
    for words, value in expected.items():
        stated = re.search(words + r"(-?[0-9.]*[0-9])", said)
        assert stated is not None and abs(float(stated[1]) - value) < 0.051, (words, value, said)
    assert max(abs((label[chosen] == n).mean() - (label == n).mean()) for n in range(3)) > 0.01  # they are not like all
    page.click("#lasso-go")
    here = page.evaluate("[...explorer.here.z]")
    assert np.allclose(here, np.array(facts["z"]).reshape(N, D)[chosen].mean(0), atol=1e-5)
    return chosen


def test_the_lasso_by_mouse_and_the_legend(page_path: Path, chromium: Any) -> None:
    with opened(chromium, page_path) as found:
        found.page.select_option("#axis-x", "0")
        page, box = found.page, found.page.locator("#map").bounding_box()
        assert page.locator("#lasso-shown").is_hidden() and page.locator("#lasso-clear").is_disabled()
        page.click("#lasso")
        middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        ring = [(middle[0] + 120 * np.cos(t), middle[1] + 100 * np.sin(t)) for t in np.linspace(0, 6.2, 20)]
        page.mouse.move(*ring[0])
        page.mouse.down()
        before = page.evaluate("explorer.map.centre")
        for at in ring[1:]:
            page.mouse.move(*at)
        page.mouse.up()
        chosen = checked(page)
        assert page.evaluate("explorer.map.centre") == before  # a drag draws, and does not pan
        page.locator("#legend input").first.uncheck()
        page.wait_for_selector("#lasso-note:has-text('three')")
        fewer = page.evaluate(FACTS)
        assert np.array_equal(np.array(fewer["chosen"]) == 1, chosen & (np.array(fewer["label"]) != 0))
        page.select_option("#axis-x", "2")  # the outline belongs to the old axes, the points stay chosen
        later = page.evaluate(FACTS)
        assert later["outline"] == [] and later["chosen"] == fewer["chosen"]
        page.click("#lasso-clear")
        page.wait_for_selector("#lasso-shown", state="hidden")
        assert page.evaluate("explorer.map.chosen") is None
        page.click("#lasso")
        page.mouse.click(*ring[0])  # off again: a click is a point of the path
        page.wait_for_selector("#film .tile")
        assert found.faults == []


def test_the_lasso_by_keys_and_by_finger(page_path: Path, chromium: Any) -> None:
    with opened(chromium, page_path, viewport={"width": 390, "height": 844}, has_touch=True) as found:
        page = found.page
        page.focus("#map")
        page.keyboard.press("l")
        assert page.get_attribute("#lasso", "aria-pressed") == "true"
        for keys in ("ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"):  # corners of a square round the middle
            for _ in range(8 if keys == "ArrowLeft" else 16 if keys != "ArrowUp" else 8):
                page.keyboard.press(keys)
            page.keyboard.press("Enter")
        assert len(page.evaluate("explorer.lasso.outline")) == 4 and page.locator("#film .tile").count() == 0
        checked(page)
        page.focus("#map")
        page.keyboard.press("Escape")
        page.wait_for_selector("#lasso-shown", state="hidden")
        page.locator("#map").scroll_into_view_if_needed()
        box = page.locator("#map").bounding_box()
        at = [{"x": box["x"] + box["width"] * (0.5 + 0.3 * c), "y": box["y"] + box["height"] * (0.5 + 0.3 * s)}
              for c, s in ((1, 0), (0.7, 0.7), (0, 1), (-1, 0), (-0.7, -0.7), (0, -1))]  # fmt: skip
        touch = found.page.context.new_cdp_session(page)
        touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [at[0]]})
        for one in at[1:]:
            touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [one]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        checked(page)
        assert found.faults == []


def test_a_path_along_the_posteriors_scale(page_path: Path, chromium: Any) -> None:
    with opened(chromium, page_path) as found:
        page = found.page
        ends = page.evaluate("[...explorer.map.z.slice(0, 6)]")
        for n in (0, 1):
            page.evaluate("(z) => explorer.setHere(z, 'example')", ends[3 * n : 3 * n + 3])
            page.click("#path-add")
        page.wait_for_selector("#path-note:has-text('that was found')")
        straight = page.evaluate("[...document.querySelectorAll('#film canvas')].map(c => c.toDataURL())")
        page.select_option("#path-kind", "scale")
        page.wait_for_selector("#path-note:has-text('along the posterior\\'s scale. Counted')")
        leg = np.array(page.evaluate("[...explorer.path.curve[0]]")).reshape(9, 3)
        assert np.allclose(leg[[0, -1]], np.array(ends).reshape(2, 3), atol=1e-6)
        bent = page.evaluate("[...document.querySelectorAll('#film canvas')].map(c => c.toDataURL())")
        assert len(bent) == 9 and bent[0] == straight[0] and bent[-1] == straight[-1] and bent != straight
        direct, least = page.evaluate("explorer.path.lengths")
        said = page.text_content("#path-note")
        assert f"is {direct:.2f} long" in said and f"found {least:.2f}." in said and 0 < least < direct - 1e-4
        page.click("#path-clear")
        assert page.evaluate("explorer.path.curve.length") == 0 and found.faults == []


def test_a_map_by_umap(page_path: Path, chromium: Any) -> None:
    """Where the pointer is, the nearest example's own code is decoded; other latents lie between the places of the five nearest codes."""
    with opened(chromium, page_path) as found:
        page = found.page
        assert page.input_value("#axis-x") == page.input_value("#axis-y") == "umap" and page.locator("#others").is_disabled()
        z = np.array(page.evaluate("[...explorer.map.z]")).reshape(N, D)
        uv = np.array(page.evaluate("[[...explorer.map.u], [...explorer.map.v]]")).T
        assert np.allclose(uv, bent(z), atol=1e-2)
        box = page.locator("#map").bounding_box()
        page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.6 * box["height"])
        place = np.array(page.evaluate("explorer.map.pointer"))
        i = int(np.linalg.norm(uv - place, axis=1).argmin())
        assert np.allclose(page.evaluate("[...explorer.here.z]"), z[i])
        page.wait_for_selector("#status:has-text('the code of the nearest example')")
        page.focus("#map")
        drawn = [page.evaluate("document.getElementById('overlay').toDataURL()")]
        for key in ("ArrowRight", "Enter", "ArrowRight"):
            page.keyboard.press(key)
            page.wait_for_timeout(150)
            drawn.append(page.evaluate("document.getElementById('overlay').toDataURL()"))
        assert len(set(drawn)) == 4 and page.evaluate("explorer.map.pointer")[0] > place[0]
        page.evaluate("(z) => explorer.setHere(z, 'example')", z[7].tolist())
        assert np.allclose(page.evaluate("explorer.map.pointer"), uv[7])
        new = (z[3] + z[9]) / 2 + 0.01
        page.evaluate("(z) => explorer.setHere(z, 'sliders')", new.tolist())
        far = ((z - new) ** 2).sum(1)
        five = far.argsort()[:5]
        expected = (uv[five] / far[five, None]).sum(0) / (1 / far[five]).sum()
        assert np.allclose(page.evaluate("explorer.map.pointer"), expected, atol=1e-3)
        page.select_option("#axis-y", "1")
        assert page.input_value("#axis-x") == "0" and not page.locator("#others").is_disabled()
        page.evaluate("explorer.point([0.1, 0.2])")
        assert np.allclose(page.evaluate("explorer.map.project(explorer.here.z)"), [0.1, 0.2], atol=1e-4)
        page.select_option("#axis-x", "umap")
        assert page.input_value("#axis-y") == "umap" and found.faults == []
