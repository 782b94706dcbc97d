// A slider for each latent dimension, those that carry most first.

import { about } from "./bytes.js";
import { here, middle, setHere } from "./here.js";
import { $, make, number } from "./words.js";

export function sliders() {
  const active = about.order.filter((d) => about.active[d]);
  const idle = about.order.filter((d) => !about.active[d]);
  const outputs = [];
  const make_ = (d) => {
    const line = make("div", "", { class: "slider" });
    const reach = Math.max(3, 4 * about.spread[d]);
    const kl = about.kl ? `, ${number(about.kl[d])} nats` : "";
    const label = make("label", `z${d}${kl}`, { for: `slider-${d}` });
    const input = make("input", "", { type: "range", id: `slider-${d}`, min: about.mean[d] - reach, max: about.mean[d] + reach, step: reach / 200 });
    const output = make("output", "", { for: `slider-${d}` });
    input.addEventListener("input", () => {
      const z = Float32Array.from(here.z);
      z[d] = Number(input.value);
      setHere(z, "sliders");
    });
    outputs.push([d, input, output]);
    line.append(label, input, output);
    return line;
  };
  $("sliders").append(...active.map(make_));
  const folded = $("inactive");
  folded.querySelector("summary").textContent = `${idle.length} inactive dimension${idle.length === 1 ? "" : "s"}`;
  folded.querySelector(".sliders").append(...idle.map(make_));
  folded.hidden = !idle.length;
  folded.open = !active.length; // of a collapsed model there is nothing else to move
  $("sliders-note").textContent = about.kl
    ? `Ordered by their KL from the prior, averaged over the data. ${active.length} of ${about.latent} are active: their posterior mean varies by more than 0.01.`
    : `Ordered by the variance of their posterior mean. ${active.length} of ${about.latent} vary by more than 0.01.`;
  const follow = (z) => {
    for (const [d, input, output] of outputs) {
      input.value = z[d];
      output.textContent = number(z[d]);
    }
  };
  here.followers.push(follow);
  follow(here.z);
  $("to-mean").addEventListener("click", () => setHere(middle(), "sliders"));
}
