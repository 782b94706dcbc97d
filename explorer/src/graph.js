// The shortest way over examples, each joined to those nearest to it, and over the points of a straight line.

const LINKS = 12;

// Between places of known log sigma, half of the squared length by each end's
function link(D, p, i, logP, q, j, logQ) {
  let sum = 0;
  for (let d = 0; d < D; d++) sum += ((q[j * D + d] - p[i * D + d]) ** 2 * (Math.exp(-2 * logP[i * D + d]) + Math.exp(-2 * logQ[j * D + d]))) / 2;
  return Math.sqrt(sum);
}

// Neighbours of each example, made once
function links(scale) {
  const { z, log, D, n } = scale;
  const found = Array.from({ length: n }, () => []);
  const k = Math.min(LINKS + 1, n);
  for (let i = 0; i < n; i++) {
    for (const j of scale.nearest(z.subarray(i * D, (i + 1) * D), k)[0]) {
      if (j === i) continue;
      const far = link(D, z, i, log, z, j, log);
      found[i].push([j, far]);
      found[j].push([i, far]);
    }
  }
  return found;
}

// points [m, D] of a straight line -> those of the shortest way from the first to the last
export function shortest(scale, points) {
  const { z, log, D, n } = scale;
  scale.links ??= links(scale);
  const m = points.length / D;
  const own = new Float64Array(m * D);
  const extra = new Map(); // links that this line brings: place -> [[place, length]]
  const join = (i, j, far) => {
    for (const [from, to] of [[i, j], [j, i]]) extra.set(from, [...(extra.get(from) ?? []), [to, far]]);
  };
  for (let i = 0; i < m; i++) {
    const p = points.subarray(i * D, (i + 1) * D);
    own.set(scale.at(p).found, i * D);
    for (const j of scale.nearest(p, Math.min(LINKS, n))[0]) join(n + i, j, link(D, points, i, own, z, j, log));
    if (i) join(n + i, n + i - 1, link(D, points, i, own, points, i - 1, own));
  }
  const way = dijkstra((i) => [...(i < n ? scale.links[i] : []), ...(extra.get(i) ?? [])], n + m, n, n + m - 1);
  const made = new Float64Array(way.length * D);
  way.forEach((i, at) => made.set(i < n ? z.subarray(i * D, (i + 1) * D) : points.subarray((i - n) * D, (i - n + 1) * D), at * D));
  return made;
}

function dijkstra(neighbours, count, start, end) {
  const distance = new Float64Array(count).fill(Infinity);
  const before = new Int32Array(count).fill(-1);
  const heap = [[0, start]]; // a binary heap; places that were improved stand in it twice
  distance[start] = 0;
  while (heap.length) {
    const [far, i] = pop(heap);
    if (i === end) break;
    if (far > distance[i]) continue;
    for (const [j, step] of neighbours(i)) {
      if (far + step < distance[j]) {
        distance[j] = far + step;
        before[j] = i;
        push(heap, [far + step, j]);
      }
    }
  }
  const way = [];
  for (let i = end; i >= 0; i = before[i]) way.push(i);
  return way.reverse();
}

function push(heap, one) {
  let at = heap.push(one) - 1;
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (heap[parent][0] <= one[0]) break;
    heap[at] = heap[parent];
    at = parent;
  }
  heap[at] = one;
}

function pop(heap) {
  const [top, last] = [heap[0], heap.pop()];
  if (!heap.length) return top;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && heap[child + 1][0] < heap[child][0]) child++;
    if (heap[child][0] >= last[0]) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = last;
  return top;
}
