// Starts the page: the map first, then the model, then what needs it.

import { about, array, codes, has } from "./bytes.js";
import { onScheme } from "./colours.js";
import { table } from "./columns.js";
import { said } from "./densities.js";
import { extremes } from "./extremes.js";
import { fill, fixed, form } from "./form.js";
import { here, middle, setHere } from "./here.js";
import { blank } from "./image.js";
import { keys } from "./keys.js";
import { forget, lasso, lassos, refresh } from "./lasso.js";
import { choices, colourBy, readColumns } from "./legend.js";
import { draws, LatentMap } from "./map.js";
import { conditional, D, decode, decodeAll, encode, ready, score, times } from "./model.js";
import { overlay } from "./overlay.js";
import { own, ownImages } from "./own.js";
import { addPoint, path, paths } from "./path.js";
import { normals, random } from "./random.js";
import { decodedTable } from "./rows.js";
import { sample, samples } from "./samples.js";
import { sliders } from "./sliders.js";
import { $, calm, count, make, number } from "./words.js";

const say = calm($("status"));

async function start() {
  heading();
  document.body.dataset.kind = table ? "table" : "image";
  if (table) {
    const show = decodedTable($("decoded-rows"));
    here.display = async (z) => show(await decodeAll(z));
  } else blank($("decoded"));
  if (table) $("map").closest("section").after($("row-title").closest("section"));
  for (const element of document.querySelectorAll(`[data-of="${table ? "image" : "table"}"]`)) element.remove();
  const z = await codes();
  const columns = await readColumns();
  const map = new LatentMap(z, {
    overlay,
    onPoint: (place) => point(map, place),
    onPick: (place) => {
      point(map, place);
      addPoint(here.z);
    },
  });
  lassos(map, columns);
  await axes(map);
  map.filtered = refresh;
  colours(map, columns);
  for (const [id, factor] of [["zoom-in", 1.5], ["zoom-out", 1 / 1.5]]) $(id).addEventListener("click", () => map.zoom(factor));
  $("zoom-all").addEventListener("click", () => map.reset());
  map.listen($("map"));
  keys($("map"), map, (place) => point(map, place));
  here.followers.push((now, source) => {
    map.pointer = source === "map" && map.embedding ? map.pointed : map.project(now);
    if (source !== "map") map.reveal(map.pointer);
    map.mark();
    say(describe(map, columns, now, source));
  });
  path.changed = own.changed = () => map.mark();
  own.drawn = (std) => {
    if (!std || map.embedding) return "";
    return ` with its posterior at one and two standard deviations${about.diagonal ? "" : ", drawn without their correlations"}`;
  };
  own.describe = (mean) => near(map, columns, map.project(mean), "its");
  sliders();
  paths(z);
  await extremes(z, D, columns);
  if (!table) ownImages();
  $("others").addEventListener("change", () => point(map, map.pointer));
  reached("map");
  await ready();
  setHere(middle(), "start");
  await decode(middle());
  $("model-state").textContent = "";
  reached("ready");
  await samples();
  if (table) await form();
  // for the console, and for the tests of this page
  globalThis.explorer = { about, columns, conditional, decode, decodeAll, draws, encode, fill, fixed, here, lasso, said: (d, rows, weights) => said(about.columns, d, rows, weights), map, noise: (n) => normals(n, random(1)), path, point: (place) => point(map, place), sample, score, setHere, times };
  reached("all");
}

function heading() {
  $("title").textContent = about.title;
  const part = about.points < about.rows ? `${count(about.points)} of ${count(about.rows)} rows, drawn at random with seed ${about.seed}` : `all ${count(about.rows)} rows`;
  const [C, H, W] = about.shape;
  const what = table ? `rows of ${C} column${C === 1 ? "" : "s"}` : `${C === 1 ? "grey" : "colour"} images of ${H} × ${W} pixels`;
  $("summary").textContent =
    `The ${about.split} split of ${about.data}, ${part}: ${what}, in ${about.latent} latent dimensions. ` +
    "Encoder and decoder run in this page; it asks no server for anything.";
  $("made").textContent = `Made by vaekit ${about.version}: vaekit explore. A percentage beside a principal component (PCA) is its share of the variance. Points are the means of q(z | x), placed to 1/65,536 of the range of each dimension.${about.umap ? ` UMAP was fitted to ${count(about.umap)} of their codes, with the page's seed.` : ""}`;
  $("extremes-note").textContent = "";
}

async function axes(map) {
  const unit = (d) => Float32Array.from({ length: D }, (_, k) => (k === d ? 1 : 0));
  const found = about.axes.slice(0, D).map((vector, n) => {
    const zero = vector.reduce((sum, a, d) => sum + a * about.mean[d], 0);
    return { name: `PCA ${n + 1} (${number(100 * about.share[n], 0)}%)`, vector: Float32Array.from(vector), zero };
  });
  for (const d of about.order) found.push({ name: about.kl ? `z${d} (${number(about.kl[d])} nats)` : `z${d}`, vector: unit(d), zero: 0 });
  const flat = D === 2; // two dimensions are their own map
  const near = has("umap") ? await array("umap") : null;
  const start = flat ? [found.length - 2, found.length - 1] : [0, Math.min(1, found.length - 1)];
  const selects = [$("axis-x"), $("axis-y")];
  selects.forEach((select, n) => {
    select.append(...found.map((axis, k) => make("option", axis.name, { value: k })));
    if (near) select.append(make("option", `UMAP ${n + 1}`, { value: "umap" }));
    select.value = near ? "umap" : start[n];
    select.addEventListener("change", () => {
      if (select.value === "umap") selects[1 - n].value = "umap";
      else if (selects[1 - n].value === "umap") selects[1 - n].value = Number(select.value) === start[1 - n] ? start[n] : start[1 - n];
      else if (D > 1 && selects[0].value === selects[1].value) selects[1 - n].value = (Number(select.value) + 1) % found.length;
      use();
    });
  });
  const use = () => {
    forget();
    $("others").disabled = selects[0].value === "umap";
    if (selects[0].value === "umap") map.setPlaces(near);
    else map.setAxes(...selects.map((select) => found[Number(select.value)]));
    map.pointer = map.project(here.z);
    map.mark();
  };
  use();
}

function colours(map, columns) {
  const select = $("colour");
  select.append(...choices(columns).map(([value, text]) => make("option", text, { value })));
  const use = () => colourBy(select.value, map, columns, say);
  select.addEventListener("change", use);
  onScheme(use);
  use();
}

// The pointer of the map moved: z within the plane of its axes, all else as the nearest example has it, or at the mean
function point(map, place) {
  if (map.embedding) {
    const i = map.nearest(place);
    map.pointed = place;
    return setHere(i < 0 ? middle() : map.z.subarray(i * D, (i + 1) * D), "map");
  }
  const i = $("others").value === "nearest" ? map.nearest(place) : -1;
  const base = i < 0 ? middle() : map.z.subarray(i * D, (i + 1) * D);
  setHere(map.lift(place, base), "map");
}

const FROM = { sliders: "set by the sliders", sample: "a sample", path: "on the path", example: "at an example", own: "at your image", row: "at your row", chosen: "at chosen points", start: "at the mean of the data", map: "" };

function describe(map, columns, z, source) {
  const [u, v] = map.project(z);
  const from = FROM[source] ? `${FROM[source]}, ` : "";
  if (map.embedding && source === "map") return `Decoded is the code of the nearest example, for UMAP has no way back from a place. ${near(map, columns, map.pointer, "This")}`;
  return `Decoded ${from}at ${number(u)} across, ${number(v)} up. ${near(map, columns, [u, v], "The")}`;
}

function near(map, columns, place, article) {
  const i = map.nearest(place);
  if (i < 0) return "No points are shown.";
  const parts = [];
  if (columns.label) parts.push(`labelled ${about.labels[columns.label[i]]}`);
  if (columns.nats) parts.push(`${number(columns.nats[i], 1)} nats`);
  if (columns.width) parts.push(`posterior width ${number(columns.width[i], 3)}`);
  return `${article} nearest example on the map is ${parts.length ? parts.join(", ") : `number ${count(i + 1)}`}.`;
}

start().catch((error) => {
  $("model-state").textContent = `This page could not be started: ${error.message}. It needs a browser of 2023 or newer.`;
  throw error;
});

// How far the page has come, for its measurement and its tests
function reached(state) {
  document.documentElement.dataset.state = state;
  performance.mark(`vaekit:${state}`);
}
