// Rows of a table on the page: what p(x | z) says of each column, and several rows beneath each other.

import { classed, columns, meanText, text } from "./columns.js";
import { said } from "./densities.js";
import { make, number } from "./words.js";

const CLASSES = 4; // probabilities that are written out, at most

function cell(words, tag = "td") {
  const made = make(tag);
  made.append(make("bdi", words));
  return made;
}

// In words: a mean with its 90% interval, or the probabilities of classes
export function inWords(d, rows, weights) {
  const column = columns[d];
  const found = said(columns, d, rows, weights);
  if (!classed(column)) return [meanText(column, found.mean), `${text(column, found.low)} to ${text(column, found.high)}`];
  const order = [...found.p.keys()].sort((a, b) => found.p[b] - found.p[a]);
  const named = order.slice(0, CLASSES).map((c) => `${column.categories[c]} ${number(100 * found.p[c], 1)}%`);
  return [column.categories[found.mean], named.join(", ") + (order.length > CLASSES ? ", ..." : "")];
}

// A line for each column, made once and filled again and again
export function decodedTable(element) {
  const head = make("tr");
  for (const words of ["Column", "Mean or mode", "90% interval or probabilities"]) head.append(make("th", words, { scope: "col" }));
  const body = make("tbody");
  const cells = columns.map(({ name }) => {
    const line = make("tr");
    const name_ = cell(name, "th");
    name_.setAttribute("scope", "row");
    const found = [cell(""), cell("")];
    line.append(name_, ...found);
    body.append(line);
    return found.map((one) => one.firstChild);
  });
  const top = make("thead");
  top.append(head);
  element.replaceChildren(top, body);
  return (rows) => {
    cells.forEach((found, d) => inWords(d, rows, [1]).forEach((words, n) => (found[n].textContent = words)));
  };
}

// entries as in sheet.js, x [n, D] in encoded numbers
export function rowSheet(element, x, entries) {
  const made = make("table");
  const head = make("tr");
  head.append(make("th", "Row", { scope: "col" }));
  for (const { name } of columns) {
    const one = cell(name, "th");
    one.setAttribute("scope", "col");
    head.append(one);
  }
  const body = make("tbody");
  entries.forEach(({ at, label, go, caption, stop }, n) => {
    const line = make("tr", "", stop ? { class: "stop" } : {});
    const first = make("td");
    const words = caption || String(n + 1);
    const named = label.includes(words) ? label : `${words}: ${label}`; // what is seen is part of what is read out
    const button = make("button", words, { type: "button", class: "tile", "aria-label": named, title: named });
    button.addEventListener("click", go);
    first.append(button);
    line.append(first, ...columns.map((column, d) => cell(text(column, x[at * columns.length + d]))));
    body.append(line);
  });
  const top = make("thead");
  top.append(head);
  made.append(top, body);
  element.classList.add("rows");
  element.replaceChildren(made);
}
