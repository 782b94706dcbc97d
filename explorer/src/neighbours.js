// A map by UMAP has places of its examples alone: those of other latents lie between the places of the nearest examples.

import { about } from "./bytes.js";

const D = about.latent;
const NEAREST = 5;

// The place of a latent: of the nearest codes' places the mean, weighted by one over the squared distance; an example's own at its code
export function placed(codes, places, z, offset = 0) {
  const found = []; // [squared distance, place], the nearest first
  let reach = Infinity;
  for (let i = 0; i < codes.length / D; i++) {
    let sum = 0;
    for (let d = 0; d < D && sum < reach; d++) sum += (codes[i * D + d] - z[offset + d]) ** 2;
    if (!(sum < reach)) continue;
    found.push([sum, i]);
    found.sort((a, b) => a[0] - b[0]);
    if (found.length > NEAREST) found.pop();
    if (found.length === NEAREST) reach = found[NEAREST - 1][0];
  }
  if (found[0][0] < 1e-12) return [places[2 * found[0][1]], places[2 * found[0][1] + 1]];
  let [u, v, total] = [0, 0, 0];
  for (const [far, i] of found) {
    u += places[2 * i] / far;
    v += places[2 * i + 1] / far;
    total += 1 / far;
  }
  return [u / total, v / total];
}
