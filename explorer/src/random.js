// Random numbers of a seed, so that what is shown can be shown again.

export function random(seed) {
  let a = seed >>> 0; // mulberry32
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export function normals(n, draw) {
  const found = new Float32Array(n);
  for (let i = 0; i < n; i += 2) {
    const r = Math.sqrt(-2 * Math.log(1 - draw())); // Box and Muller
    const t = 2 * Math.PI * draw();
    found[i] = r * Math.cos(t);
    if (i + 1 < n) found[i + 1] = r * Math.sin(t);
  }
  return found;
}
