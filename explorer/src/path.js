// A path through chosen points, decoded frame by frame: along straight lines, or where the posterior's scale makes the way short.

import { about, array, has } from "./bytes.js";
import { geodesic, Scale } from "./geodesic.js";
import { here, setHere } from "./here.js";
import { D, decode } from "./model.js";
import { sheet } from "./sheet.js";
import { $, number } from "./words.js";

const FRAMES = 8; // from one point to the next
const MOST = 12;
const known = new Map(); // of each pair of points what was computed: from -> to -> found
export const path = { points: [], curve: [], lengths: [], changed: () => {} };
let scale = null;

export function addPoint(z) {
  path.points = [...path.points.slice(path.points.length >= MOST ? 1 : 0), Float32Array.from(z)];
  return film();
}

export function clearPath() {
  path.points = [];
  return film();
}

async function between(from, to) {
  scale ??= array("std").then((std) => new Scale(path.z, std, D));
  const found = known.get(from) ?? new Map();
  known.set(from, found);
  if (!found.has(to)) found.set(to, geodesic(await scale, from, to, FRAMES));
  return found.get(to);
}

const straight = (from, to) => Float32Array.from({ length: (FRAMES + 1) * D }, (_, i) => from[i % D] + ((to[i % D] - from[i % D]) * Math.floor(i / D)) / FRAMES);

async function film() {
  const { points } = path;
  const along = $("path-kind").value === "scale";
  const legs = [];
  for (let n = 1; n < points.length; n++) {
    if (along) {
      if (!known.get(points[n - 1])?.has(points[n])) {
        $("path-note").textContent = "The shortest way is being looked for.";
        await new Promise((go) => setTimeout(go, 20)); // the page shows what was asked before this takes its time
      }
      legs.push((await between(points[n - 1], points[n])).points);
    } else legs.push(straight(points[n - 1], points[n]));
    if (points !== path.points || along !== ($("path-kind").value === "scale")) return;
  }
  path.curve = legs;
  path.changed();
  for (const name of ["path-undo", "path-clear"]) $(name).disabled = !points.length;
  if (!points.length) $("film").replaceChildren();
  else await frames(points, legs);
  if (points === path.points) await words(points);
}

async function frames(points, legs) {
  const z = [...points[0]];
  for (const leg of legs) z.push(...leg.subarray(D)); // each leg begins where the one before it ended
  const x = await decode(z);
  if (points !== path.points) return;
  const count = z.length / D;
  const entries = Array.from({ length: count }, (_, i) => {
    const stop = i % FRAMES === 0;
    const label = `Frame ${i + 1} of ${count}${stop ? ", a chosen point" : ""}: go there on the map`;
    return { at: i, stop, label, go: () => setHere(z.slice(i * D, (i + 1) * D), "path") };
  });
  sheet($("film"), x, entries);
}

async function words(points) {
  const few = ["No points yet: click on the map, or press Enter there.", "One point: add another, and the way between them is decoded."];
  if (points.length < 2) return ($("path-note").textContent = few[points.length]);
  const along = $("path-kind").value === "scale";
  let said = `${points.length} points, ${FRAMES} steps from each to the next, ${along ? "along the posterior's scale" : "along straight lines"}.`;
  if (has("std")) {
    $("path-note").textContent = said;
    await new Promise((go) => setTimeout(go, 20));
    let [direct, least] = [0, 0];
    for (let n = 1; n < points.length; n++) {
      const found = await between(points[n - 1], points[n]);
      direct += found.straight;
      least += found.length;
    }
    if (points !== path.points) return;
    path.lengths = [direct, least];
    said += ` Counted in local standard deviations of q(z | x), the straight way is ${number(direct)} long and the shortest that was found ${number(least)}.`;
  }
  $("path-note").textContent = said;
}

export function paths(z) {
  path.z = z;
  const kind = $("path-kind");
  kind.disabled = !has("std");
  $("path-kind-note").textContent = has("std")
    ? `Along the posterior's scale a way is short where the posteriors are wide: its length counts local standard deviations of q(z | x), those of the nearest of ${about.blocks.std.shape[0]} examples averaged.`
    : "q(z | x) has no standard deviations here, so that paths are straight.";
  kind.addEventListener("change", film);
  $("path-add").addEventListener("click", () => addPoint(here.z));
  $("path-undo").addEventListener("click", () => {
    path.points = path.points.slice(0, -1);
    film();
  });
  $("path-clear").addEventListener("click", clearPath);
  film();
}

