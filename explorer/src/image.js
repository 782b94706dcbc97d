// Rows of a tensor as pictures.

import { about } from "./bytes.js";

const [C, H, W] = about.shape; // of images; nothing here is used of a table
const [LOW, HIGH] = about.range;

export function show(canvas, x, offset = 0) {
  if (canvas.width !== W || canvas.height !== H) {
    canvas.width = W;
    canvas.height = H;
  }
  const context = canvas.getContext("2d");
  const image = context.createImageData(W, H);
  const plane = H * W;
  const scale = 255 / (HIGH - LOW);
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = (x[offset + (C === 1 ? 0 : c) * plane + i] - LOW) * scale + 0.5;
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

export function blank(canvas) {
  show(canvas, new Float32Array(C * H * W).fill(LOW));
}

// Grey or colour in [0, 1], RGBA bytes of W * H -> the values that the model was trained on
export function toInput(rgba) {
  const x = new Float32Array(C * H * W);
  const plane = H * W;
  for (let i = 0; i < plane; i++) {
    const [r, g, b] = [rgba[4 * i], rgba[4 * i + 1], rgba[4 * i + 2]];
    if (C === 1) x[i] = value((0.299 * r + 0.587 * g + 0.114 * b) / 255);
    else for (let c = 0; c < 3; c++) x[c * plane + i] = value(rgba[4 * i + c] / 255);
  }
  return x;
}

function value(share) {
  const exact = LOW + share * (HIGH - LOW);
  const levels = about.levels;
  if (!levels) return exact;
  let [a, b] = [0, levels.length - 1];
  while (b - a > 1) {
    const middle = (a + b) >> 1;
    if (levels[middle] > exact) b = middle;
    else a = middle;
  }
  return exact - levels[a] < levels[b] - exact ? levels[a] : levels[b];
}
