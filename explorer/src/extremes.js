// The rows that the model finds most and least likely.

import { about, array } from "./bytes.js";
import { table } from "./columns.js";
import { fixed } from "./form.js";
import { setHere } from "./here.js";
import { PIXELS } from "./model.js";
import { own } from "./own.js";
import { rowsOf, sheet } from "./sheet.js";
import { $, count, number } from "./words.js";

export async function extremes(z, D, columns) {
  const { best = [], worst = [] } = about.extremes ?? {};
  $("extremes").hidden = !best.length;
  if (!best.length) return;
  const x = table ? rowsOf(columns.rows, [...best, ...worst]) : await array("images");
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
  fixed.examples = (n) => rowsOf(columns.rows, [[...best, ...worst][n % words.length]]);
  own.examples = { x, size: PIXELS, words };
  $("extremes-note").textContent =
    `Of the ${count(about.points)} rows on the map, below each −log p(x) in nats, at most, by ${about.samples} importance sample${about.samples === 1 ? "" : "s"}. ${table && x.some(Number.isNaN) ? "Of a row with missing values it is that of the others, so that rows with few values come first. " : ""}Click one to go there.`;
}
