// What the colours mean, and which classes are shown.

import { about, array, has } from "./bytes.js";
import { classColour, css, packed, scaleColour } from "./colours.js";
import { $, count, make, number } from "./words.js";

const UNITS = { nats: "nats", width: "geometric mean of the posterior's standard deviations over the active dimensions" };

export async function readColumns() {
  const columns = {};
  for (const name of ["label", "nats", "width"]) if (has(name)) columns[name] = await array(name);
  return columns;
}

export function choices(columns) {
  const names = { label: "by label", nats: "by −log p(x), nats", width: "by posterior width" };
  const found = Object.keys(names).filter((name) => columns[name]);
  return found.length ? found.map((name) => [name, names[name]]) : [["none", "none"]];
}

export function colourBy(name, map, columns, say) {
  const legend = $("legend");
  legend.replaceChildren();
  if (name === "label") classes(legend, map, columns.label, say);
  else if (columns[name]) scale(legend, map, columns[name], name);
  map.draw();
}

function classes(legend, map, label, say) {
  const sizes = new Array(about.labels.length).fill(0);
  for (const l of label) sizes[l]++;
  const colours = about.labels.map((_, n) => packed(classColour(n, about.labels.length)));
  for (let i = 0; i < label.length; i++) map.colour[i] = colours[label[i]];
  const fieldset = make("fieldset");
  fieldset.append(make("legend", "Labels shown"));
  const boxes = about.labels.map((text, n) => {
    const line = make("label");
    const box = make("input", "", { type: "checkbox" });
    box.checked = map.shownLabels?.[n] ?? true;
    const swatch = make("span", "", { class: "swatch" });
    swatch.style.background = css(classColour(n, about.labels.length));
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
    map.shownLabels = boxes.map((box) => box.checked);
    let shown = 0;
    for (let i = 0; i < label.length; i++) shown += map.visible[i] = map.shownLabels[label[i]] ? 1 : 0;
    map.filtered();
    say(`${count(shown)} of ${count(label.length)} points shown: ${boxes.filter((box) => box.checked).length} of ${boxes.length} labels.`);
  }
}

function scale(legend, map, values, name) {
  const sorted = Float32Array.from(values).sort();
  const [low, high] = [0.02, 0.98].map((share) => sorted[Math.round(share * (sorted.length - 1))]);
  for (let i = 0; i < values.length; i++) map.colour[i] = packed(scaleColour((values[i] - low) / (high - low || 1)));
  const line = make("div", "", { class: "scale" });
  const bar = make("canvas", "", { width: 128, height: 1, role: "img", "aria-label": "Colour scale, from the lowest to the highest" });
  const context = bar.getContext("2d");
  for (let x = 0; x < 128; x++) {
    context.fillStyle = css(scaleColour(x / 127));
    context.fillRect(x, 0, 1, 1);
  }
  const digits = high - low < 5 ? 3 : 1;
  line.append(make("span", number(low, digits)), bar, make("span", number(high, digits)), make("span", UNITS[name], { class: "soft" }));
  legend.append(line, make("p", "From the 2% to the 98% quantile; what lies beyond has the colour of the end.", { class: "soft" }));
}
