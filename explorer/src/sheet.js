// Several decoded or real examples, each a button that leads to its place on the map: pictures here, rows where the data are a table.

import { table } from "./columns.js";
import { PIXELS } from "./model.js";
import { rowSheet } from "./rows.js";
import { tile } from "./tiles.js";

// entries: [{ at, label, go, caption, stop }], `at` the example's place in x
export function sheet(element, x, entries) {
  if (table) return rowSheet(element, x, entries);
  element.replaceChildren(
    ...entries.map(({ at, label, go, caption, stop }) => {
      const made = tile(x, at * PIXELS, label, go, caption);
      if (stop) made.classList.add("stop");
      return made;
    }),
  );
}

// Rows of a block [N, PIXELS], one after the other
export function rowsOf(block, places) {
  const x = new Float32Array(places.length * PIXELS);
  places.forEach((row, n) => x.set(block.subarray(row * PIXELS, (row + 1) * PIXELS), n * PIXELS));
  return x;
}
