// Encoder, decoder and score by onnxruntime, one call at a time.

import { env, InferenceSession, Tensor } from "onnxruntime-web";
import { about, array, has, inflate } from "./bytes.js";
import { table } from "./columns.js";
import { normals, random } from "./random.js";

env.wasm.numThreads = 1; // a page from disk is not isolated, so that it has no shared memory
env.wasm.proxy = false;
env.logLevel = "error";

export const D = about.latent;
export const PIXELS = about.shape.reduce((a, b) => a * b, 1); // or columns
export const times = []; // milliseconds of the latest decodings of one point

let runtime = null;
const sessions = {};
let queue = Promise.resolve();

function session(part) {
  sessions[part] ??= (async () => {
    runtime ??= inflate("runtime").then((bytes) => (env.wasm.wasmBinary = bytes.buffer));
    await runtime;
    const bytes = await inflate(part);
    return InferenceSession.create(bytes, { executionProviders: ["wasm"], graphOptimizationLevel: "all", intraOpNumThreads: 1 });
  })();
  return sessions[part];
}

function run(part, feeds) {
  const made = queue.then(async () => (await session(part)).run(feeds));
  queue = made.catch(() => {});
  return made;
}

export const ready = () => session("decoder");

// z [n, D] -> what the graph says of p(x | z): of images the centres [n, C * H * W]
export async function decodeAll(z) {
  const start = performance.now();
  const found = await run("decoder", { z: new Tensor("float32", Float32Array.from(z), [z.length / D, D]) });
  if (z.length === D) {
    times.push(performance.now() - start);
    if (times.length > 500) times.shift();
  }
  return found[about.decoder[0]].data;
}

// z [n, D] -> the centres of p(x | z), [n, PIXELS]; of a table they begin each row of what the graph gives
export async function decode(z) {
  const all = await decodeAll(z);
  if (!table) return all;
  const [n, width] = [z.length / D, all.length / (z.length / D)];
  return Float32Array.from({ length: n * PIXELS }, (_, i) => all[Math.floor(i / PIXELS) * width + (i % PIXELS)]);
}

// x [PIXELS], of a table with null where nothing is known -> { mean, std } of q(z | x); std is null where q is no Gaussian
export async function encode(x) {
  const found = await run("encoder", inputs(x));
  const std = about.encoder.includes("std") ? found.std.data : null;
  return { mean: found[about.encoder[0]].data, std };
}

function inputs(x) {
  const dims = [1, ...about.shape];
  const feeds = { x: new Tensor("float32", Float32Array.from(x, (one) => one ?? 0), dims) };
  if (table) feeds.mask = new Tensor("bool", Uint8Array.from(x, (one) => (one === null ? 0 : 1)), dims);
  return feeds;
}

let noise = null;

// A row with null where nothing is known -> log weights [K] of samples z_k ~ q(z | x_obs), and what is said of each p(x | z_k), [K, width]
export async function conditional(u) {
  noise ??= Promise.all(about.score.noise.map(async (name) => [name, new Tensor("float32", await array(name), about.blocks[name].shape)]));
  const found = await run("score", { ...inputs(u), ...Object.fromEntries(await noise) });
  return { logW: found.log_w.data, rows: found.rows.data };
}

export const scores = () => has("score");

// x -> the importance-weighted estimate of log p(x) in nats, with noise of a fixed seed
export async function score(x) {
  const feeds = inputs(x);
  const draw = random(1);
  for (const [name, shape] of Object.entries(about.score.inputs)) {
    const dims = shape.map((size) => (size === "batch" ? 1 : size));
    const n = dims.reduce((a, b) => a * b, 1);
    const noise = name === "eps" ? normals(n, draw) : Float32Array.from({ length: n }, draw);
    feeds[name] = new Tensor("float32", noise, dims);
  }
  return (await run("score", feeds)).log_px.data[0];
}
