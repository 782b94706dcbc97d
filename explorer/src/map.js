// The map: 60,000 points written straight into an image's memory, which is quicker than a software GL and needs no graphics card.

import { about } from "./bytes.js";
import { isDark } from "./colours.js";
import { placed } from "./neighbours.js";
import { $ } from "./words.js";

const D = about.latent;
export const N = about.points;
export const draws = []; // milliseconds of the latest drawings of the points

export class LatentMap {
  constructor(z, { overlay, onPoint, onPick }) {
    this.z = z;
    this.colour = new Uint32Array(N).fill(0xff888888);
    this.visible = new Uint8Array(N).fill(1);
    this.u = new Float32Array(N);
    this.v = new Float32Array(N);
    this.drawOverlay = overlay;
    this.onPoint = onPoint;
    this.onPick = onPick;
    this.stage = $("stage");
    this.context = $("points").getContext("2d");
    this.over = $("overlay").getContext("2d");
    this.centre = [0, 0];
    this.scale = 1;
    this.pointer = [0, 0];
    this.pointed = null; // where the pointer is on a map whose places are no projection
    this.tool = null; // takes drags and clicks while it is there: the lasso
    this.chosen = null; // of each point whether it is, once some are
    new ResizeObserver(() => this.resize()).observe(this.stage);
    this.resize();
  }

  // Axes are vectors of latent space with the place of their zero: { vector, zero }
  setAxes(a, b) {
    this.cache = new WeakMap();
    this.embedding = null;
    this.a = a;
    this.b = b;
    for (let i = 0; i < N; i++) [this.u[i], this.v[i]] = this.project(this.z, i * D);
    this.reset();
  }

  // Places that are no projection, [N, 2]
  setPlaces(places) {
    this.cache = new WeakMap();
    this.embedding = places;
    for (let i = 0; i < N; i++) [this.u[i], this.v[i]] = [places[2 * i], places[2 * i + 1]];
    this.reset();
  }

  // The places of points [n, D], kept as long as the axes are
  places(points) {
    if (!this.cache.has(points)) this.cache.set(points, Array.from({ length: points.length / D }, (_, i) => this.project(points, i * D)));
    return this.cache.get(points);
  }

  project(z, offset = 0) {
    if (this.embedding) return placed(this.z, this.embedding, z, offset);
    let [u, v] = [-this.a.zero, -this.b.zero];
    for (let d = 0; d < D; d++) {
      u += this.a.vector[d] * z[offset + d];
      v += this.b.vector[d] * z[offset + d];
    }
    return [u, v];
  }

  // The latent at (u, v) that differs from base within the plane of the axes alone
  lift([u, v], base) {
    let [aa, ab, bb] = [0, 0, 0];
    for (let d = 0; d < D; d++) {
      aa += this.a.vector[d] ** 2;
      ab += this.a.vector[d] * this.b.vector[d];
      bb += this.b.vector[d] ** 2;
    }
    const [u0, v0] = this.project(base);
    const det = aa * bb - ab * ab;
    const along = det < 1e-9 ? [(u - u0) / aa, 0] : [(bb * (u - u0) - ab * (v - v0)) / det, (aa * (v - v0) - ab * (u - u0)) / det];
    return Float32Array.from(base, (value, d) => value + along[0] * this.a.vector[d] + along[1] * this.b.vector[d]);
  }

  nearest([u, v]) {
    let [best, least] = [-1, Infinity];
    for (let i = 0; i < N; i++) {
      const distance = (this.u[i] - u) ** 2 + (this.v[i] - v) ** 2;
      if (distance < least && this.visible[i]) [best, least] = [i, distance];
    }
    return best;
  }

  resize() {
    const box = this.stage.getBoundingClientRect();
    this.ratio = Math.min(2, devicePixelRatio || 1);
    [this.wide, this.high] = [Math.max(1, Math.round(this.stage.clientWidth * this.ratio)), Math.max(1, Math.round(this.stage.clientHeight * this.ratio))];
    for (const { canvas } of [this.context, this.over]) [canvas.width, canvas.height] = [this.wide, this.high];
    this.image = this.context.createImageData(this.wide, this.high);
    this.memory = new Uint32Array(this.image.data.buffer);
    if ((this.a || this.embedding) && (!this.shown || this.whole)) this.reset();
    this.shown = box.width > 0;
    this.draw();
  }

  reset() {
    const range = (values) => {
      const sorted = Float32Array.from(values).sort();
      const cut = Math.floor(N / 1000); // a few far out do not make all others small
      return [sorted[cut], sorted[N - 1 - cut]];
    };
    const [[u0, u1], [v0, v1]] = [range(this.u), range(this.v)];
    this.centre = [(u0 + u1) / 2, (v0 + v1) / 2];
    this.fit = 0.92 * Math.min(this.wide / Math.max(1e-6, u1 - u0), this.high / Math.max(1e-6, v1 - v0));
    this.scale = this.fit;
    this.whole = true;
    this.draw();
  }

  toScreen([u, v]) {
    return [(u - this.centre[0]) * this.scale + this.wide / 2, this.high / 2 - (v - this.centre[1]) * this.scale];
  }

  toMap([x, y]) {
    return [(x - this.wide / 2) / this.scale + this.centre[0], (this.high / 2 - y) / this.scale + this.centre[1]];
  }

  pan(dx, dy) {
    this.centre = [this.centre[0] - dx / this.scale, this.centre[1] + dy / this.scale];
    this.whole = false;
    this.draw();
  }

  zoom(factor, [x, y] = [this.wide / 2, this.high / 2]) {
    const [u, v] = this.toMap([x, y]);
    this.scale = Math.min(400 * this.fit, Math.max(0.2 * this.fit, this.scale * factor));
    const [u1, v1] = this.toMap([x, y]);
    this.centre = [this.centre[0] + u - u1, this.centre[1] + v - v1];
    this.whole = false;
    this.draw();
  }

  // Bring a place into view if it is not
  reveal(place) {
    const [x, y] = this.toScreen(place);
    const edge = 12 * this.ratio;
    const dx = x < edge ? edge - x : x > this.wide - edge ? this.wide - edge - x : 0;
    const dy = y < edge ? edge - y : y > this.high - edge ? this.high - edge - y : 0;
    if (dx || dy) this.pan(dx, dy);
  }

  draw() {
    this.points = true;
    this.mark();
  }

  // The overlay alone
  mark() {
    this.asked ??= requestAnimationFrame(() => {
      this.asked = null;
      if (!this.a && !this.embedding) return;
      if (this.points) this.drawPoints();
      this.points = false;
      this.over.clearRect(0, 0, this.wide, this.high);
      this.drawOverlay(this.over, this);
    });
  }

  drawPoints() {
    const start = performance.now();
    const { memory, wide, high, scale, u, v, colour, visible, chosen } = this;
    const other = isDark() ? 0xff4d443d : 0xffd6cfc9; // of points that are not among the chosen
    memory.fill(0);
    const base = N > 20000 ? 0.9 : N > 4000 ? 1.5 : 2.4;
    const r = Math.min(5, base * Math.min(3, Math.sqrt(Math.max(1, scale / this.fit)))) * this.ratio;
    const disc = [];
    const reach = Math.ceil(r);
    for (let dy = -reach; dy <= reach; dy++) for (let dx = -reach; dx <= reach; dx++) if (dx * dx + dy * dy <= r * r + 0.5) disc.push(dy * wide + dx);
    const left = wide / 2 - this.centre[0] * scale;
    const top = high / 2 + this.centre[1] * scale;
    for (let i = 0; i < N; i++) {
      if (!visible[i]) continue;
      const x = Math.round(left + u[i] * scale);
      const y = Math.round(top - v[i] * scale);
      if (x < reach || y < reach || x >= wide - reach || y >= high - reach) continue;
      const at = y * wide + x;
      const ink = chosen && !chosen[i] ? other : colour[i];
      for (let k = 0; k < disc.length; k++) memory[at + disc[k]] = ink;
    }
    this.context.putImageData(this.image, 0, 0);
    draws.push(performance.now() - start);
    if (draws.length > 500) draws.shift();
  }

  listen(element) {
    const down = new Map(); // pointers that are down: id -> [x, y]
    let moved = 0;
    const place = (event) => {
      const box = element.getBoundingClientRect();
      return [(event.clientX - box.left) * this.ratio, (event.clientY - box.top) * this.ratio];
    };
    element.addEventListener("pointerdown", (event) => {
      element.setPointerCapture(event.pointerId);
      down.set(event.pointerId, place(event));
      moved = 0;
      if (this.tool) {
        if (down.size === 1) this.tool.start();
        else this.tool.cancel(); // two fingers zoom
      } else if (event.pointerType !== "mouse" && down.size === 1) this.onPoint(this.toMap(place(event)));
    });
    element.addEventListener("pointermove", (event) => {
      const [x, y] = place(event);
      const before = down.get(event.pointerId);
      if (before && this.tool && down.size === 1) {
        const first = moved === 0;
        moved += Math.hypot(x - before[0], y - before[1]);
        if (moved < 6 * this.ratio) moved = 0; // a click's own tremble is no outline
        else {
          this.tool.move(this.toMap([x, y]), first);
          down.set(event.pointerId, [x, y]);
        }
        return;
      }
      if (!before || (event.pointerType !== "mouse" && down.size === 1)) {
        if (before) moved += Math.hypot(x - before[0], y - before[1]);
        if (before) down.set(event.pointerId, [x, y]);
        return this.onPoint(this.toMap([x, y]));
      }
      moved += Math.hypot(x - before[0], y - before[1]);
      if (down.size === 2) {
        const [other] = [...down].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
        const span = (p) => Math.max(10, Math.hypot(p[0] - other[0], p[1] - other[1]));
        this.zoom(span([x, y]) / span(before), [(x + other[0]) / 2, (y + other[1]) / 2]);
        this.pan((x - before[0]) / 2, (y - before[1]) / 2);
      } else this.pan(x - before[0], y - before[1]);
      down.set(event.pointerId, [x, y]);
    });
    element.addEventListener("pointerup", (event) => {
      if (this.tool && down.size === 1) {
        if (moved) this.tool.end();
        else this.tool.corner(this.toMap(place(event)));
      } else if (down.size === 1 && moved < 6 * this.ratio) this.onPick(this.toMap(place(event)));
      down.delete(event.pointerId);
    });
    element.addEventListener("pointercancel", (event) => {
      down.delete(event.pointerId);
      this.tool?.cancel();
    });
    element.addEventListener("wheel", (event) => {
      if (document.activeElement !== element && !event.ctrlKey) return; // the page's own scrolling is not taken away
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), place(event));
    }, { passive: false });
  }
}
