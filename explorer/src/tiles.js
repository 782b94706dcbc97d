// Small pictures that are buttons.

import { show } from "./image.js";
import { make } from "./words.js";

export function tile(x, offset, label, go, caption = "") {
  const button = make("button", "", { type: "button", class: "tile", "aria-label": label, title: label });
  const canvas = make("canvas", "", { "aria-hidden": "true" });
  show(canvas, x, offset);
  button.append(canvas);
  if (caption) button.append(make("span", caption));
  button.addEventListener("click", go);
  return button;
}
