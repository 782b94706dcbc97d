// A table's columns: between the model's numbers u and values as people write them.

import { about } from "./bytes.js";
import { number } from "./words.js";

export const table = about.kind === "table";
export const columns = about.columns ?? [];
export const classed = (column) => column.size > 0 && column.kind !== "discretised_logistic";
export const MISSING = "–";
const CUT = { D: 10, h: 13, m: 16, s: 19 }; // characters of an ISO date

export function plain(column, u) {
  const x = column.loc + column.scale * u;
  const value = column.log ? Math.exp(x) : x;
  if (column.decimals == null) return value;
  const step = 10 ** column.decimals;
  return Math.round(value * step) / step;
}

export function encoded(column, value) {
  return ((column.log ? Math.log(value) : value) - column.loc) / column.scale;
}

// Digits that tell values apart in the column's range
function digits(column) {
  const range = Math.abs(plain(column, column.high) - plain(column, column.low));
  return column.decimals ?? (range > 0 ? Math.min(8, Math.max(0, 2 - Math.floor(Math.log10(range)))) : 0);
}

export function text(column, u) {
  if (!Number.isFinite(u)) return MISSING;
  if (classed(column)) return column.categories[Math.min(column.size - 1, Math.max(0, Math.round(u)))];
  const value = plain(column, u);
  if (column.date) {
    const date = new Date(column.unit < 1 ? Math.round(value) : column.unit * Math.round(value / column.unit));
    return Number.isNaN(date.getTime()) ? MISSING : date.toISOString().slice(0, CUT[column.date] ?? 23).replace("T", " ");
  }
  return Math.abs(value) >= 1e15 ? value.toExponential(3) : number(value, digits(column));
}

// Of an expected number: one digit more than the column's numbers have, whose mean lies between them
export function meanText(column, u) {
  if (column.decimals == null || classed(column)) return text(column, u);
  return number(column.log ? Math.exp(column.loc + column.scale * u) : column.loc + column.scale * u, column.decimals + 1);
}

// What somebody typed -> u, or null where it is no value of the column
export function typed(column, words) {
  const value = column.date ? Date.parse(words.trim().replace(" ", "T") + (words.trim().length > 10 ? "Z" : "")) : Number(words);
  if (words.trim() === "" || !Number.isFinite(value)) return null;
  if (column.log && value <= 0) return null;
  const u = encoded(column, value);
  if (column.kind === "continuous_bernoulli" && (value < 0 || value > 1)) return null;
  if (/poisson|binomial/.test(column.kind) && (value < 0 || value !== Math.round(value))) return null;
  return Number.isFinite(Math.fround(u)) ? u : null;
}

export const forInput = (column, u) => (column.date ? text(column, u) : String(Number(plain(column, u).toPrecision(7))));
