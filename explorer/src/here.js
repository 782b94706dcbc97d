// The one latent that all parts of the page speak of: set by the map, the sliders, samples, examples, an image.

import { about } from "./bytes.js";
import { show } from "./image.js";
import { D, decode } from "./model.js";
import { $ } from "./words.js";

export const here = {
  z: Float32Array.from(about.mean),
  followers: [],
  display: async (z) => show($("decoded"), await decode(z)),
};
let wanted = null;
let busy = false;

export function setHere(z, source) {
  here.z = Float32Array.from(z);
  for (const follow of here.followers) follow(here.z, source);
  wanted = here.z;
  if (!busy) follow();
}

// Only the latest wish is decoded: a slow model lags by one picture, never by a queue of them.
async function follow() {
  busy = true;
  while (wanted) {
    const z = wanted;
    wanted = null;
    try {
      await here.display(z);
      here.decoded = z;
      here.count = (here.count ?? 0) + 1;
    } catch (error) {
      $("model-state").textContent = `The model could not be run: ${error.message}`;
      break;
    }
    await new Promise(requestAnimationFrame);
  }
  busy = false;
}

export const middle = () => Float32Array.from(about.mean);
export const size = D;
