// The rows that the model finds most and least likely.

import { about, array, has } from "./bytes.js";
import { setHere } from "./here.js";
import { PIXELS } from "./model.js";
import { own } from "./own.js";
import { sheet } from "./sheet.js";
import { $, count, number } from "./words.js";

export async function extremes(z, D, columns) {
  $("extremes").hidden = !has("images");
  if (!has("images")) return;
  const x = await array("images");
  const { best, worst } = about.extremes;
  const words = [];
  const fill = (rows, element, kind, offset) => {
    const entries = rows.map((row, n) => {
      const nats = number(columns.nats[row], 1);
      const label = columns.label ? `, labelled ${about.labels[columns.label[row]]}` : "";
      const text = `${kind} likely example ${n + 1}${label}`;
      words.push(text);
      return { at: offset + n, label: `${text}, ${nats} nats: go there on the map`, go: () => setHere(z.slice(row * D, (row + 1) * D), "example"), caption: nats };
    });
    sheet(element, x, entries);
  };
  fill(best, $("best"), "Most", 0);
  fill(worst, $("worst"), "Least", best.length);
  own.examples = { x, size: PIXELS, words };
  $("extremes-note").textContent =
    `Of the ${count(about.points)} rows on the map, below each −log p(x) in nats, at most, by ${about.samples} importance sample${about.samples === 1 ? "" : "s"}. Click one to go there.`;
}
