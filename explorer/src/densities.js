// Distribution functions of a column's kinds, and what a weighted mixture of them says: nothing here knows of the page.

import { beta, gammaQ, logistic, normal, student } from "./special.js";

const PLAIN = 1e20; // an inverse dispersion beyond which a count is a Poisson variable

function counted(x, mean, r, zero) {
  const k = Math.floor(x);
  if (k < 0) return 0;
  const below = mean <= 0 ? 1 : r > PLAIN ? gammaQ(k + 1, mean) : beta(r / (r + mean), r, k + 1);
  return zero + (1 - zero) * below;
}

function bernoulli(x, logit) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  return Math.abs(logit) < 1e-4 ? x + (logit * x * (x - 1)) / 2 : Math.abs(logit) < 500 ? Math.expm1(logit * x) / Math.expm1(logit) : logit > 0 ? Math.exp(logit * (x - 1)) : -Math.expm1(logit * x);
}

// P(u <= x) of each kind, a, b and c being the graph's parameters
const KINDS = {
  gaussian: (x, a, b) => normal((x - a) / b),
  student: (x, a, b, c) => student((x - a) / b, c),
  continuous_bernoulli: bernoulli,
  discretised_logistic: (x, a, b, _, size) => {
    const k = Math.floor(x * (size - 1) + 1e-6);
    return k < 0 ? 0 : k >= size - 1 ? 1 : logistic(((k + 0.5) / (size - 1) - a) / b);
  },
  poisson: counted, negative_binomial: counted, zero_inflated_poisson: counted, zero_inflated_negative_binomial: counted,
};

export const discrete = (kind) => KINDS[kind] === counted;

// The least x with F(x) >= level, F the mixture of `parts` [[weight, a, b, c]]; of counts a whole number
export function quantile({ kind, size = 0 }, parts, level) {
  const F = (x) => parts.reduce((sum, [w, a, b, c]) => sum + w * KINDS[kind](x, a, b, c, size), 0);
  if (kind === "discretised_logistic") {
    let k = 0;
    while (k < size - 1 && F(k / (size - 1)) < level) k++;
    return k / (size - 1);
  }
  let [low, high] = kind === "continuous_bernoulli" ? [0, 1] : discrete(kind) ? [-1, 1] : around(parts);
  const step = high - low;
  if (kind !== "continuous_bernoulli") for (let n = 0; F(high) < level && n < 60; n++) high += step * 2 ** n;
  if (kind !== "continuous_bernoulli" && !discrete(kind)) for (let n = 0; F(low) >= level && n < 60; n++) low -= step * 2 ** n;
  for (let n = 0; n < 60 && high - low > (discrete(kind) ? 1 : 1e-5 * Math.max(1, Math.abs(high))); n++) {
    const middle = discrete(kind) ? Math.floor((low + high) / 2) : (low + high) / 2;
    if (F(middle) < level) low = middle;
    else high = middle;
  }
  return high;
}

function around(parts) {
  const places = parts.map((part) => part[1]);
  const wide = Math.max(...parts.map((part) => part[2]));
  return [Math.min(...places) - 2 * wide, Math.max(...places) + 2 * wide];
}

// What a mixture says of column d: rows [K, width] as the graph gives them, weights [K]; in the column's encoded numbers
export function said(columns, d, rows, weights, share = 0.9) {
  const column = columns[d];
  const D = columns.length;
  const width = rows.length / weights.length;
  const ends = [(1 - share) / 2, (1 + share) / 2];
  const at = (k, field) => rows[k * width + field * D + d];
  if (column.size && column.kind !== "discretised_logistic") {
    const first = 4 * D + columns.slice(0, d).reduce((sum, one) => sum + one.size, 0);
    const p = Array.from({ length: column.size }, (_, c) => weights.reduce((sum, w, k) => sum + w * rows[k * width + first + c], 0));
    const best = p.indexOf(Math.max(...p));
    if (!column.ordered) return { p, mean: best };
    const find = (level) => {
      let sum = 0;
      const found = p.findIndex((one) => (sum += one) >= level);
      return found < 0 ? p.length - 1 : found;
    };
    return { p, mean: best, low: find(ends[0]), high: find(ends[1]) };
  }
  const mean = weights.reduce((sum, w, k) => sum + w * at(k, 0), 0);
  // components of next to no weight change no end, and there are many
  const most = Math.max(...weights);
  const kept = [...weights.keys()].filter((k) => weights[k] > 1e-5 * most);
  const total = kept.reduce((sum, k) => sum + weights[k], 0);
  const parts = kept.map((k) => [weights[k] / total, at(k, 1), at(k, 2), at(k, 3)]);
  const [low, high] = ends.map((level) => quantile(column, parts, level));
  return { mean, low, high };
}
