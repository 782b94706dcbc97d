// Points chosen by an outline on the map, drawn by mouse or finger or cornered by keys, and what can be said of them.

import { about } from "./bytes.js";
import { table } from "./columns.js";
import { setHere } from "./here.js";
import { D, decode } from "./model.js";
import { rowsOf, sheet } from "./sheet.js";
import { $, count, number } from "./words.js";

const SHOWN = 12;
const LABELS = 8; // named by their shares, at most
export const lasso = { on: false, outline: [], drawing: false };
let map = null;
let columns = null;

// What the map calls while the lasso is on, with places of latent space
export const tool = {
  start: () => (lasso.drawing = true),
  move: (place, first) => {
    if (first) lasso.outline = [];
    lasso.outline.push(place);
    map.mark();
  },
  end: () => {
    lasso.drawing = false;
    choose();
  },
  cancel: () => {
    lasso.drawing = false;
    lasso.outline = [];
    choose();
  },
  corner: (place) => {
    lasso.drawing = false;
    lasso.outline = [...lasso.outline, place];
    choose();
  },
};

export function toggle(on = !lasso.on) {
  lasso.on = on;
  map.tool = on ? tool : null;
  $("lasso").setAttribute("aria-pressed", on);
  if (on && !map.chosen) lasso.outline = [];
  words();
  map.mark();
}

export function clear() {
  lasso.outline = [];
  choose();
}

function inside(x, y, outline) {
  let found = false;
  for (let i = 0, j = outline.length - 1; i < outline.length; j = i++) {
    const [[xi, yi], [xj, yj]] = [outline[i], outline[j]];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) found = !found;
  }
  return found;
}

// The shown points inside the outline, which is closed from its last corner to its first
export function choose() {
  const { outline } = lasso;
  map.chosen = null;
  if (outline.length > 2) {
    map.chosen = new Uint8Array(map.u.length);
    const [us, vs] = [outline.map((at) => at[0]), outline.map((at) => at[1])];
    const [u0, u1, v0, v1] = [Math.min(...us), Math.max(...us), Math.min(...vs), Math.max(...vs)];
    for (let i = 0; i < map.u.length; i++) {
      const [u, v] = [map.u[i], map.v[i]];
      if (map.visible[i] && u >= u0 && u <= u1 && v >= v0 && v <= v1 && inside(u, v, outline)) map.chosen[i] = 1;
    }
  }
  map.draw();
  return words();
}

const rows = () => (map.chosen ? [...map.chosen.keys()].filter((i) => map.chosen[i] && map.visible[i]) : []);
const mean = (values, found) => found.reduce((sum, i) => sum + values[i], 0) / found.length;

async function words() {
  const found = rows();
  const { length } = lasso.outline;
  for (const name of ["lasso-clear", "lasso-go"]) $(name).disabled = name === "lasso-go" ? !found.length : !length && !map.chosen;
  $("lasso-shown").hidden = !found.length;
  if (!found.length) {
    $("lasso-note").textContent = !map.chosen
      ? lasso.on
        ? `The lasso is on: draw round points, or set corners by clicks or by Enter${length ? `; ${length} so far, and from three on what is between them is chosen` : ""}.`
        : "No points are chosen. Switch the lasso on (the button on the map, or the key L there), and draw round some."
      : "No shown point lies inside the outline.";
    return;
  }
  const all = map.u.length;
  const said = [`${count(found.length)} of ${count(all)} points are chosen (${number((100 * found.length) / all, 1)}%).`];
  if (columns.label) {
    const sizes = about.labels.map((text, n) => [text, found.filter((i) => columns.label[i] === n).length]).filter(([, n]) => n);
    sizes.sort((a, b) => b[1] - a[1]);
    const named = sizes.slice(0, LABELS).map(([text, n]) => `${text}: ${number((100 * n) / found.length, 1)}%`);
    said.push(`Labels: ${named.join(", ")}${sizes.length > LABELS ? `, and ${sizes.length - LABELS} more` : ""}.`);
  }
  const everyone = [...map.u.keys()];
  if (columns.nats) said.push(`Their mean −log p(x) is ${number(mean(columns.nats, found), 1)} nats, that of all points ${number(mean(columns.nats, everyone), 1)}.`);
  if (columns.width) said.push(`Mean posterior width ${number(mean(columns.width, found), 3)}, of all ${number(mean(columns.width, everyone), 3)}.`);
  $("lasso-note").textContent = said.join(" ");
  await pictures(found);
}

function middleOf(found) {
  return Float32Array.from({ length: D }, (_, d) => found.reduce((sum, i) => sum + map.z[i * D + d], 0) / found.length);
}

// The decoded mean of the codes, then some of the chosen, evenly taken
async function pictures(found) {
  const { chosen } = map;
  const some = Array.from({ length: Math.min(SHOWN, found.length) }, (_, n) => found[Math.floor((n * found.length) / Math.min(SHOWN, found.length))]);
  const z = [middleOf(found), ...some.map((i) => map.z.slice(i * D, (i + 1) * D))];
  const x = table
    ? Float32Array.from([...(await decode(z[0])), ...rowsOf(columns.rows, some)])
    : await decode(z.flatMap((one) => [...one]));
  if (chosen !== map.chosen) return;
  const entries = z.map((one, at) => ({
    at,
    stop: at === 0,
    caption: at ? "" : "mean",
    label: at ? `Chosen point ${at} of ${some.length} shown${table ? "" : ", decoded"}: go there on the map` : "The mean of the chosen codes, decoded: go there on the map",
    go: () => setHere(one, "chosen"),
  }));
  sheet($("lasso-shown"), x, entries);
}

export function lassos(onMap, values) {
  map = onMap;
  columns = values;
  $("lasso").addEventListener("click", () => toggle());
  $("lasso-clear").addEventListener("click", clear);
  $("lasso-go").addEventListener("click", () => setHere(middleOf(rows()), "chosen"));
  words();
}

// The legend shows other points now
export function refresh() {
  if (lasso.outline.length) return choose();
  map.draw();
  return words();
}

// Other axes: the outline is of the old ones, the chosen stay chosen
export function forget() {
  lasso.outline = [];
}
