// What the colours mean, and which classes are shown.

import { about, array, has } from "./bytes.js";
import { classColour, css, packed, scaleColour } from "./colours.js";
import { classed, columns as tableColumns, table, text } from "./columns.js";
import { $, count, make, number } from "./words.js";

const MISSING = 0xff888888;
const UNITS = { nats: "nats", width: "geometric mean of the posterior's standard deviations over the active dimensions" };

export async function readColumns() {
  const columns = {};
  for (const name of ["label", "nats", "width"]) if (has(name)) columns[name] = await array(name);
  if (table) columns.rows = await array("rows");
  return columns;
}

// One column of a table, NaN where a value is missing
function cells(columns, d) {
  const D = tableColumns.length;
  return Float32Array.from({ length: columns.rows.length / D }, (_, i) => columns.rows[i * D + d]);
}

export function choices(columns) {
  const names = { label: "by label", nats: "by −log p(x), nats", width: "by posterior width" };
  const found = Object.keys(names).filter((name) => columns[name]);
  const all = found.map((name) => [name, names[name]]);
  tableColumns.forEach((column, d) => all.push([`x${d}`, `by ${column.name}`]));
  return all.length ? all : [["none", "none"]];
}

export function colourBy(name, map, columns, say) {
  const legend = $("legend");
  legend.replaceChildren();
  const column = tableColumns[Number(name.slice(1))];
  if (name === "label") classes(legend, map, columns.label, about.labels, name, say);
  else if (columns[name]) scale(legend, map, columns[name], UNITS[name], (value, digits) => number(value, digits));
  else if (column && classed(column)) {
    const u = cells(columns, Number(name.slice(1)));
    const names = u.some(Number.isNaN) ? [...column.categories, "missing"] : column.categories;
    classes(legend, map, u.map((value) => (Number.isNaN(value) ? names.length - 1 : value)), names, name, say);
  } else if (column) scale(legend, map, cells(columns, Number(name.slice(1))), column.name, (value) => text(column, value));
  map.draw();
}

function classes(legend, map, label, names, key, say) {
  if (map.legend?.key !== key) {
    map.legend = { key, labels: names.map(() => true) };
    map.visible.fill(1);
    map.filtered();
  }
  const sizes = new Array(names.length).fill(0);
  for (const l of label) sizes[l]++;
  const colours = names.map((_, n) => packed(classColour(n, names.length)));
  for (let i = 0; i < label.length; i++) map.colour[i] = colours[label[i]];
  const fieldset = make("fieldset");
  fieldset.append(make("legend", "Labels shown"));
  const boxes = names.map((text, n) => {
    const line = make("label");
    const box = make("input", "", { type: "checkbox" });
    box.checked = map.legend.labels[n];
    const swatch = make("span", "", { class: "swatch" });
    swatch.style.background = css(classColour(n, names.length));
    const words = make("bdi", text);
    line.append(box, swatch, words);
    line.title = `${text}: ${count(sizes[n])} points`;
    box.addEventListener("change", filter);
    fieldset.append(line);
    return box;
  });
  const all = make("button", "All or none", { type: "button" });
  all.addEventListener("click", () => {
    const on = !boxes.every((box) => box.checked);
    for (const box of boxes) box.checked = on;
    filter();
  });
  fieldset.append(all);
  legend.append(fieldset);
  function filter() {
    map.legend.labels = boxes.map((box) => box.checked);
    let shown = 0;
    for (let i = 0; i < label.length; i++) shown += map.visible[i] = map.legend.labels[label[i]] ? 1 : 0;
    map.filtered();
    say(`${count(shown)} of ${count(label.length)} points shown: ${boxes.filter((box) => box.checked).length} of ${boxes.length} labels.`);
  }
}

function scale(legend, map, values, unit, write) {
  const sorted = values.filter((value) => !Number.isNaN(value)).sort();
  const [low, high] = [0.02, 0.98].map((share) => sorted[Math.round(share * (sorted.length - 1))]);
  for (let i = 0; i < values.length; i++) map.colour[i] = Number.isNaN(values[i]) ? MISSING : packed(scaleColour((values[i] - low) / (high - low || 1)));
  const line = make("div", "", { class: "scale" });
  const bar = make("canvas", "", { width: 128, height: 1, role: "img", "aria-label": "Colour scale, from the lowest to the highest" });
  const context = bar.getContext("2d");
  for (let x = 0; x < 128; x++) {
    context.fillStyle = css(scaleColour(x / 127));
    context.fillRect(x, 0, 1, 1);
  }
  const digits = high - low < 5 ? 3 : 1;
  line.append(make("span", write(low, digits)), bar, make("span", write(high, digits)), make("bdi", unit, { class: "soft" }));
  legend.append(line, make("p", "From the 2% to the 98% quantile; what lies beyond has the colour of the end." + (sorted.length < values.length ? ` ${count(values.length - sorted.length)} points without a value are grey.` : ""), { class: "soft" }));
}
