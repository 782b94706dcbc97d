// An image drawn, dropped or opened: encoded, placed on the map, reconstructed, scored.

import { about } from "./bytes.js";
import { setHere } from "./here.js";
import { blank, show, toInput } from "./image.js";
import { D, decode, encode, score, scores } from "./model.js";
import { $, calm, number } from "./words.js";

const [, H, W] = about.shape;
export const own = { posterior: null, changed: () => {}, examples: null, describe: () => "", drawn: () => "" };
let name = "";
let wanted = false;
let busy = false;
let next = 0;

function pen() {
  const context = $("pad").getContext("2d", { willReadFrequently: true });
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = Math.max(1, W / 13);
  context.strokeStyle = "#fff";
  return context;
}

async function changed() {
  wanted = true;
  if (busy) return;
  busy = true;
  while (wanted) {
    wanted = false;
    await look(toInput(pen().getImageData(0, 0, W, H).data));
  }
  busy = false;
}

const say = calm($("own-status"));

async function look(x) {
  try {
    own.posterior = await encode(x);
    show($("own-decoded"), await decode(own.posterior.mean));
    own.changed();
    const { mean, std } = own.posterior;
    const far = Math.sqrt(mean.reduce((sum, m, d) => sum + ((m - about.mean[d]) / (about.spread[d] || 1)) ** 2, 0) / D);
    let words = `${name || "Your drawing"}: on the map as a diamond${own.drawn(std)}; ${own.describe(mean)}`;
    words += ` Its code lies ${number(far)} standard deviations of the data from their mean, a typical one 1.00.`;
    if (scores()) words += ` −log p(x) is at most about ${number(-(await score(x)), 1)} nats, by ${about.score.samples} importance samples.`;
    else words += " This model's likelihood has no graph, so the image is not scored.";
    say(words);
  } catch (error) {
    say(`The image could not be encoded: ${error.message}`);
  }
}

async function open(file) {
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    return say(`${file.name} is no picture that this browser can read.`);
  }
  const context = pen();
  blank($("pad"));
  const scale = Math.min(W / picture.width, H / picture.height);
  const [w, h] = [picture.width * scale, picture.height * scale];
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, (W - w) / 2, (H - h) / 2, w, h);
  name = file.name;
  return changed();
}

export function ownImages() {
  const pad = $("pad");
  pen(); // first: a canvas that is read often is kept where reading is quick
  blank(pad);
  blank($("own-decoded"));
  let last = null;
  const place = (event) => {
    const box = pad.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * W, ((event.clientY - box.top) / box.height) * H];
  };
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    last = place(event);
    name = "";
    stroke(last, last);
  });
  pad.addEventListener("pointermove", (event) => {
    if (!last) return;
    const at = place(event);
    stroke(last, at);
    last = at;
  });
  for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => (last = null));
  $("pad-clear").addEventListener("click", () => {
    blank(pad);
    blank($("own-decoded"));
    own.posterior = null;
    own.changed();
    say("The pad is empty.");
  });
  $("pad-invert").addEventListener("click", () => {
    const context = pen();
    const image = context.getImageData(0, 0, W, H);
    for (let i = 0; i < image.data.length; i++) if (i % 4 !== 3) image.data[i] = 255 - image.data[i];
    context.putImageData(image, 0, 0);
    changed();
  });
  $("pad-example").hidden = !own.examples;
  $("pad-example").addEventListener("click", () => {
    const { x, size, words } = own.examples;
    show(pad, x, (next % words.length) * size);
    name = words[next++ % words.length];
    changed();
  });
  $("pad-go").addEventListener("click", () => own.posterior && setHere(own.posterior.mean, "own"));
  $("file").addEventListener("change", (event) => {
    if (event.target.files.length) open(event.target.files[0]);
    event.target.value = "";
  });
  for (const type of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(type, (event) => {
      event.preventDefault(); // the browser would leave the page for the picture
      pad.classList.toggle("drop", type === "dragover");
      if (type === "drop" && event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
    });
  }
}

function stroke(from, to) {
  const context = pen();
  context.beginPath();
  context.moveTo(...from);
  context.lineTo(to[0] + 0.01, to[1]);
  context.stroke();
  changed();
}
