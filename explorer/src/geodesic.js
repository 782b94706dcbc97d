// Shortest paths where distance is counted in local posterior standard deviations,
//   length = integral of sqrt(sum_d (dz_d / sigma_d(z))^2),
// log sigma(z) being a smooth mean of those of the nearest examples. Nothing here knows of the page.

import { shortest } from "./graph.js";

const NEAREST = 8; // examples whose log sigma are averaged
const PARTS = 32; // pieces of a path while it is being shortened
const ROUNDS = 40;

export class Scale {
  // codes z [n, D] and their posterior standard deviations, both flat
  constructor(z, std, D) {
    this.D = D;
    this.n = std.length / D;
    this.z = Float64Array.from(z.subarray(0, this.n * D));
    this.log = Float64Array.from(std, (s) => Math.log(Math.max(s, 1e-12)));
  }

  // The k codes nearest to p, the nearest first: [place, squared distance]
  nearest(p, k) {
    const { z, D, n } = this;
    const place = new Int32Array(k).fill(-1);
    const distance = new Float64Array(k).fill(Infinity);
    for (let i = 0; i < n; i++) {
      let sum = 0;
      for (let d = 0; d < D && sum < distance[k - 1]; d++) sum += (z[i * D + d] - p[d]) ** 2;
      if (!(sum < distance[k - 1])) continue;
      let at = k - 1;
      for (; at > 0 && distance[at - 1] > sum; at--) [place[at], distance[at]] = [place[at - 1], distance[at - 1]];
      [place[at], distance[at]] = [i, sum];
    }
    return [place, distance];
  }

  // log sigma at p: weights (1 - r^2 / R^2)^2 that vanish at the first example left out, so that it has no jumps
  at(p) {
    const { D, log } = this;
    const k = Math.min(NEAREST, this.n - 1);
    const found = new Float64Array(D);
    if (k < 1) return { found: log.slice(0, D), place: [], u: [], total: 1, reach: 0, last: 0 };
    const [place, distance] = this.nearest(p, k + 1);
    const reach = distance[k];
    const u = Array.from({ length: k }, (_, i) => (reach > 0 ? distance[i] / reach : 0));
    let total = 0;
    for (let i = 0; i < k; i++) {
      const weight = (1 - u[i]) ** 2 + 1e-9;
      total += weight;
      for (let d = 0; d < D; d++) found[d] += weight * log[place[i] * D + d];
    }
    for (let d = 0; d < D; d++) found[d] /= total;
    return { found, place, u, total, reach, last: place[k] };
  }
}

// The squared length of a piece with its middle at m, and, where slope is given, what of it comes by sigma's change with m
function piece(scale, a, b, at, slope, weights) {
  const { D, z, log } = scale;
  const m = new Float64Array(D);
  for (let d = 0; d < D; d++) m[d] = (a[at + d] + b[at + D + d]) / 2;
  const { found, place, u, total, reach, last } = scale.at(m);
  let sum = 0;
  const parts = new Float64Array(D);
  for (let d = 0; d < D; d++) {
    const w = Math.exp(-2 * found[d]);
    if (weights) weights[at + d] = w;
    parts[d] = w * (b[at + D + d] - a[at + d]) ** 2;
    sum += parts[d];
  }
  if (!slope || !(reach > 0)) return sum;
  for (let i = 0; i < u.length; i++) {
    let s = 0;
    for (let d = 0; d < D; d++) s -= (2 * parts[d] * (log[place[i] * D + d] - found[d])) / total;
    s *= (-2 * (1 - u[i])) / reach;
    for (let d = 0; d < D; d++) slope[at + d] += s * 2 * (m[d] - z[place[i] * D + d] - u[i] * (m[d] - z[last * D + d]));
  }
  return sum;
}

const pieces = (points, D) => points.length / D - 1;

// Lengths of the pieces of a path [n, D]
function lengths(scale, points) {
  return Float64Array.from({ length: pieces(points, scale.D) }, (_, i) => Math.sqrt(piece(scale, points, points, i * scale.D)));
}

export const length = (scale, points) => lengths(scale, points).reduce((a, b) => a + b, 0);

export function line(a, b, parts, D) {
  const points = new Float64Array((parts + 1) * D);
  for (let i = 0; i <= parts; i++) for (let d = 0; d < D; d++) points[i * D + d] = a[d] + ((b[d] - a[d]) * i) / parts;
  return points;
}

// The same path in pieces of equal length
export function even(scale, points, parts) {
  const { D } = scale;
  const own = lengths(scale, points);
  const total = own.reduce((a, b) => a + b, 0);
  const made = new Float64Array((parts + 1) * D);
  let [i, before] = [0, 0];
  for (let n = 0; n <= parts; n++) {
    const wanted = (total * n) / parts;
    while (i < own.length - 1 && before + own[i] < wanted) before += own[i++];
    const share = own[i] > 0 ? Math.min(1, (wanted - before) / own[i]) : n / parts;
    for (let d = 0; d < D; d++) made[n * D + d] = points[i * D + d] + share * (points[(i + 1) * D + d] - points[i * D + d]);
  }
  return made;
}

// Shortens a path between its ends: descent on its energy, the sum of the squared lengths of its pieces, which of all ways to run
// through a shortest path is least at even speed. Steps are those of the metric held still, by a tridiagonal system a dimension.
function relax(scale, start) {
  const { D } = scale;
  const n = pieces(start, D);
  let points = start;
  let energy = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    const weights = new Float64Array(n * D);
    const slope = new Float64Array(n * D);
    let now = 0;
    for (let i = 0; i < n; i++) now += piece(scale, points, points, i * D, slope, weights);
    if (energy - now < 1e-7 * now && round) break;
    energy = now;
    const step = new Float64Array(points.length);
    for (let d = 0; d < D; d++) solve(points, weights, slope, step, n, D, d);
    let found = null;
    for (let share = 1; share > 1e-3 && !found; share /= 2) {
      const trial = points.map((value, i) => value + share * step[i]);
      let sum = 0;
      for (let i = 0; i < n && sum < energy; i++) sum += piece(scale, trial, trial, i * D);
      if (sum < energy) found = trial;
    }
    if (!found) break;
    points = found;
  }
  return points;
}

// Thomas' algorithm for dimension d of the inner points
function solve(points, weights, slope, step, n, D, d) {
  const upper = new Float64Array(n);
  for (let j = 1; j < n; j++) {
    const [before, after] = [weights[(j - 1) * D + d], weights[j * D + d]];
    const at = j * D + d;
    const gradient = 2 * before * (points[at] - points[at - D]) - 2 * after * (points[at + D] - points[at]) + (slope[(j - 1) * D + d] + slope[at]) / 2;
    const pivot = 2 * (before + after) - (j > 1 ? 2 * before * upper[j - 1] : 0);
    upper[j] = (2 * after) / pivot;
    step[at] = (-gradient + (j > 1 ? 2 * before * step[at - D] : 0)) / pivot;
  }
  for (let j = n - 2; j >= 1; j--) step[j * D + d] += upper[j] * step[(j + 1) * D + d];
}

// From a to b: the path in `parts` pieces of equal length, its length, and that of the straight line. It is shortened from two beginnings,
// the straight line and the best way over examples, which finds what lies round a corner.
export function geodesic(scale, a, b, parts) {
  const { D } = scale;
  const direct = line(a, b, PARTS, D);
  const straight = length(scale, direct);
  let best = direct;
  let least = straight;
  for (const start of [direct, shortest(scale, direct)]) {
    const made = relax(scale, even(scale, start, PARTS));
    const own = length(scale, made);
    if (own < least) [best, least] = [made, own];
  }
  return { points: even(scale, best, parts), length: least, straight };
}
