// A path through chosen points, decoded frame by frame along straight lines.

import { here, setHere } from "./here.js";
import { D, decode, PIXELS } from "./model.js";
import { tile } from "./tiles.js";
import { $ } from "./words.js";

const FRAMES = 8; // from one point to the next
const MOST = 12;
export const path = { points: [], changed: () => {} };

export function addPoint(z) {
  if (path.points.length >= MOST) path.points.shift();
  path.points.push(Float32Array.from(z));
  film();
}

export function clearPath() {
  path.points = [];
  film();
}

async function film() {
  const { points } = path;
  path.changed();
  const words = ["No points yet: click on the map, or press Enter there.", "One point: add another, and the line between them is decoded."];
  $("path-note").textContent = words[points.length] ?? `${points.length} points, ${FRAMES} steps along a straight line from each to the next.`;
  for (const name of ["path-undo", "path-clear"]) $(name).disabled = !points.length;
  if (!points.length) return $("film").replaceChildren();
  const z = [];
  const stops = [];
  points.forEach((to, n) => {
    const from = points[n - 1] ?? to;
    for (let t = n ? 1 : FRAMES; t <= FRAMES; t++) {
      for (let d = 0; d < D; d++) z.push(from[d] + (to[d] - from[d]) * (t / FRAMES));
      stops.push(t === FRAMES);
    }
  });
  const x = await decode(z);
  if (points !== path.points) return;
  const tiles = stops.map((stop, i) => {
    const at = z.slice(i * D, (i + 1) * D);
    const made = tile(x, i * PIXELS, `Frame ${i + 1} of ${stops.length}${stop ? ", a chosen point" : ""}: go there on the map`, () => setHere(at, "path"));
    if (stop) made.classList.add("stop");
    return made;
  });
  $("film").replaceChildren(...tiles);
}

export function paths() {
  $("path-add").addEventListener("click", () => addPoint(here.z));
  $("path-undo").addEventListener("click", () => {
    path.points = path.points.slice(0, -1);
    film();
  });
  $("path-clear").addEventListener("click", clearPath);
  film();
}
