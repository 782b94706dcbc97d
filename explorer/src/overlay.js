// What lies over the points: the pointer, the path, the image of one's own with its posterior.

import { about } from "./bytes.js";
import { isDark } from "./colours.js";
import { lasso } from "./lasso.js";
import { own } from "./own.js";
import { path } from "./path.js";

export function overlay(context, map) {
  const ink = isDark() ? "#ffffff" : "#000000";
  const paper = isDark() ? "#000000" : "#ffffff";
  const width = map.ratio;
  const twice = (draw, thick = 2) => {
    for (const [style, line] of [[paper, thick + 2], [ink, thick]]) {
      context.strokeStyle = style;
      context.lineWidth = line * width;
      context.beginPath();
      draw();
      context.stroke();
    }
  };
  const draw = (places) => twice(() => places.forEach((at, n) => (n ? context.lineTo(...at) : context.moveTo(...at))));
  if (lasso.outline.length) outline(context, map, ink, paper);
  const places = path.points.map((z) => map.toScreen(map.places(z)[0]));
  for (const leg of path.curve) draw(map.places(leg).map((at) => map.toScreen(at)));
  for (const [n, [x, y]] of places.entries()) {
    twice(() => context.arc(x, y, 6 * width, 0, 7));
    context.fillStyle = ink;
    context.font = `${12 * width}px system-ui, sans-serif`;
    context.lineWidth = 3 * width;
    context.strokeStyle = paper;
    context.strokeText(n + 1, x + 9 * width, y - 7 * width);
    context.fillText(n + 1, x + 9 * width, y - 7 * width);
  }
  if (own.posterior) {
    const [x, y] = map.toScreen(map.places(own.posterior.mean)[0]);
    if (own.posterior.std && !map.embedding) for (const s of [1, 2]) ellipse(map, own.posterior.std, s, (...of) => twice(() => context.ellipse(x, y, ...of, 0, 7), 1.5));
    const r = 6 * width;
    twice(() => {
      for (const [dx, dy] of [[r, 0], [0, r], [-r, 0], [0, -r], [r, 0]]) context.lineTo(x + dx, y + dy);
      context.closePath();
    });
  }
  const [x, y] = map.toScreen(map.pointer);
  twice(() => {
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 5 * dx * width, y + 5 * dy * width);
      context.lineTo(x + 14 * dx * width, y + 14 * dy * width);
    }
  });
}

// Dashed, and closed from the last corner to the first
function outline(context, map, ink, paper) {
  const places = lasso.outline.map((at) => map.toScreen(at));
  context.beginPath();
  places.forEach((at, n) => (n ? context.lineTo(...at) : context.moveTo(...at)));
  if (!lasso.drawing && places.length > 2) context.closePath();
  for (const [style, line, dash] of [[paper, 4, []], [ink, 2, [5 * map.ratio, 4 * map.ratio]]]) {
    context.setLineDash(dash);
    context.strokeStyle = style;
    context.lineWidth = line * map.ratio;
    context.stroke();
  }
  context.setLineDash([]);
  context.fillStyle = ink;
  if (!lasso.drawing) for (const [x, y] of places.length < 13 ? places : []) context.fillRect(x - 3 * map.ratio, y - 3 * map.ratio, 6 * map.ratio, 6 * map.ratio);
}

// Half axes and angle of the projected covariance diag(std^2), at s standard deviations, in screen pixels
function ellipse(map, std, s, draw) {
  let [uu, uv, vv] = [0, 0, 0];
  for (let d = 0; d < about.latent; d++) {
    const variance = std[d] ** 2;
    uu += map.a.vector[d] ** 2 * variance;
    uv += map.a.vector[d] * map.b.vector[d] * variance;
    vv += map.b.vector[d] ** 2 * variance;
  }
  const middle = (uu + vv) / 2;
  const gap = Math.hypot((uu - vv) / 2, uv);
  const scale = s * map.scale;
  draw(Math.sqrt(middle + gap) * scale, Math.sqrt(Math.max(0, middle - gap)) * scale, -0.5 * Math.atan2(2 * uv, uu - vv));
}
