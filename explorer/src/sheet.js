// Several decoded or real examples, each a button that leads to its place on the map: pictures here, rows where the data are a table.

import { PIXELS } from "./model.js";
import { tile } from "./tiles.js";

// entries: [{ at, label, go, caption, stop }], `at` the example's place in x
export function sheet(element, x, entries) {
  element.replaceChildren(
    ...entries.map(({ at, label, go, caption, stop }) => {
      const made = tile(x, at * PIXELS, label, go, caption);
      if (stop) made.classList.add("stop");
      return made;
    }),
  );
}
