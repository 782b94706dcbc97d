// New examples: z of the prior, at a temperature, decoded.

import { about, array } from "./bytes.js";
import { setHere } from "./here.js";
import { D, decode } from "./model.js";
import { normals, random } from "./random.js";
import { sheet } from "./sheet.js";
import { $, number } from "./words.js";

const COUNT = 24;
let seed = 0;
let draws = null; // z ~ p(z), where the prior is not one that the page can draw from

async function latents(temperature) {
  if (about.prior) {
    const e = normals(COUNT * D, random(1000 + seed));
    return e.map((value, i) => about.prior.mean[i % D] + temperature * about.prior.std[i % D] * value);
  }
  draws ??= await array("draws");
  const start = ((seed * COUNT) % (draws.length / D - COUNT)) * D;
  return draws.slice(start, start + COUNT * D);
}

export async function sample() {
  const temperature = Number($("temperature").value);
  $("temperature-value").textContent = number(temperature);
  const z = await latents(temperature);
  const x = await decode(z);
  const entries = Array.from({ length: COUNT }, (_, at) => (
    { at, label: `Sample ${at + 1}: go there on the map`, go: () => setHere(z.slice(at * D, (at + 1) * D), "sample") }));
  sheet($("samples"), x, entries);
  $("sample-note").textContent = about.prior
    ? `${COUNT} decoded draws from the prior, seed ${seed}; the temperature scales the noise, 1 is the model's own.`
    : `${COUNT} decoded draws from the prior, made with the page: this prior has no temperature here.`;
}

export function samples() {
  $("temperature").disabled = !about.prior;
  let wanted = false;
  let busy = false;
  const again = async () => {
    wanted = true;
    if (busy) return;
    busy = true;
    while (wanted) {
      wanted = false;
      await sample();
    }
    busy = false;
  };
  $("temperature").addEventListener("input", again);
  $("sample-again").addEventListener("click", () => {
    seed++;
    again();
  });
  return again();
}
