// A row of one's own: some columns fixed, the rest as the model expects it given those, by importance samples in the page.
//   z_k ~ q(z | x_obs), w_k proportional to p(x_obs | z_k) p(z_k) / q(z_k | x_obs), E[x_mis | x_obs] = sum_k w_k E[x_mis | z_k]

import { about } from "./bytes.js";
import { classed, columns, forInput, text, typed } from "./columns.js";
import { setHere } from "./here.js";
import { conditional, encode } from "./model.js";
import { own } from "./own.js";
import { inWords } from "./rows.js";
import { $, calm, count, make, number } from "./words.js";

const lines = []; // of each column: { set, wrong, result }
export const fixed = { u: new Array(columns.length).fill(null), examples: null };
let next = 0;
let wanted = false;
let busy = false;
const say = calm($("row-status"));

export async function changed() {
  wanted = true;
  if (busy) return;
  busy = true;
  while (wanted) {
    wanted = false;
    try {
      await look();
    } catch (error) {
      say(`The row could not be looked at: ${error.message}`);
    }
    await new Promise(requestAnimationFrame);
  }
  busy = false;
}

// log weights -> weights that sum to 1, log of their mean, and the effective number of samples
export function normalised(logW) {
  const most = Math.max(...logW);
  const w = Array.from(logW, (one) => Math.exp(one - most));
  const total = w.reduce((a, b) => a + b, 0);
  const weights = w.map((one) => one / total);
  return { weights, logP: most + Math.log(total / w.length), ess: 1 / weights.reduce((sum, one) => sum + one * one, 0) };
}

async function look() {
  const u = [...fixed.u];
  const many = u.filter((one) => one !== null).length;
  const { logW, rows } = await conditional(u);
  const { weights, logP, ess } = normalised(logW);
  fixed.last = { u, weights, rows, logP, ess };
  columns.forEach((_, d) => {
    const found = lines[d].result;
    if (lines[d].wrong()) found.textContent = "no value of this column";
    else if (u[d] !== null) found.textContent = "fixed";
    else found.textContent = inWords(d, rows, weights).join(classed(columns[d]) ? ": " : ", 90%: ");
  });
  own.posterior = many ? await encode(u) : null;
  own.changed();
  $("row-go").disabled = !many;
  let words = `${many} of ${columns.length} columns fixed; of the others the means and probabilities that the model gives them${many ? " given those" : ""}, by ${about.score.samples} importance samples, worth ${number(ess, 0)}.`;
  if (many) {
    words += ` −log p of what is fixed is at most about ${number(-logP, 1)} nats. It is on the map as a diamond${own.drawn(own.posterior.std)}; ${own.describe(own.posterior.mean)}`;
    if (ess < 20) words += " So few effective samples make these numbers rough: the columns fixed are a combination that the model finds strange.";
  }
  say(words);
}

function choice(column, d, id) {
  const select = make("select", "", { id });
  select.append(make("option", "unknown", { value: "" }), ...column.categories.map((name, n) => make("option", name, { value: n })));
  select.addEventListener("change", () => fix(d, select.value === "" ? null : Number(select.value)));
  return { parts: [select], set: (u) => (select.value = u === null ? "" : Math.round(u)), wrong: () => false };
}

function amount(column, d, id) {
  const input = make("input", "", { id, type: "text", inputmode: column.date ? "text" : "decimal", placeholder: "unknown", autocomplete: "off" });
  const whole = /poisson|binomial/.test(column.kind);
  const slider = make("input", "", { type: "range", min: column.low, max: column.high, step: whole ? 1 : (column.high - column.low) / 200, "aria-labelledby": `${id}-name` });
  const told = () => slider.setAttribute("aria-valuetext", fixed.u[d] === null ? "unknown" : text(column, fixed.u[d]));
  input.addEventListener("input", () => {
    const u = typed(column, input.value);
    input.setAttribute("aria-invalid", u === null && input.value.trim() !== "");
    if (u !== null) slider.value = u;
    fix(d, u);
    told();
  });
  slider.addEventListener("input", () => {
    const u = typed(column, forInput(column, Number(slider.value))); // as it is written: whole where the column is
    input.value = forInput(column, Number(slider.value));
    input.setAttribute("aria-invalid", false);
    fix(d, u);
    told();
  });
  const set = (u) => {
    input.value = u === null ? "" : forInput(column, u);
    slider.value = u ?? (column.low + column.high) / 2;
    input.setAttribute("aria-invalid", false);
    told();
  };
  return { parts: [input, slider], set, wrong: () => input.getAttribute("aria-invalid") === "true" };
}

function fix(d, u) {
  fixed.u[d] = u;
  changed();
}

export function fill(u) {
  u.forEach((one, d) => {
    fixed.u[d] = Number.isFinite(one) ? one : null;
    lines[d].set(fixed.u[d]);
  });
  return changed();
}

export function form() {
  columns.forEach((column, d) => {
    const id = `column-${d}`;
    const line = make("div", "", { class: "field" });
    const label = make("label", "", { for: id, id: `${id}-name` });
    label.append(make("bdi", column.name));
    const { parts, set, wrong } = (classed(column) ? choice : amount)(column, d, id);
    const forget = make("button", "unknown", { type: "button", "aria-label": `${column.name}: unknown` });
    forget.addEventListener("click", () => {
      fixed.u[d] = null;
      set(null);
      changed();
    });
    const result = make("bdi", "", { class: "result" });
    line.append(label, ...parts, ...(classed(column) ? [] : [forget]), result);
    lines.push({ set, wrong, result });
    $("fields").append(line);
    set(null);
  });
  $("row-example").hidden = !fixed.examples;
  $("row-example").addEventListener("click", () => fill(fixed.examples(next++)));
  $("row-clear").addEventListener("click", () => fill(columns.map(() => null)));
  $("row-go").addEventListener("click", () => own.posterior && setHere(own.posterior.mean, "row"));
  $("row-note").textContent =
    `Fix some columns, and the page says what the model expects of the others: of numbers the mean and the interval that holds them with 90% probability, of classes the probabilities. ` +
    `Of a column that is modelled by its logarithm the mean is that of the logarithm. ${count(about.score.samples)} samples z ~ q(z | x) stand behind each answer, weighted as vaekit impute does.`;
  return changed();
}
