// The map by keyboard.

import { here } from "./here.js";
import { clear, lasso, toggle, tool } from "./lasso.js";
import { addPoint, clearPath } from "./path.js";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

export function keys(element, map, point) {
  element.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key];
    const step = Math.min(map.wide, map.high) / 50;
    if (arrow && event.shiftKey) map.pan(-arrow[0] * 4 * step, arrow[1] * 4 * step);
    else if (arrow) {
      const place = [map.pointer[0] + (arrow[0] * step) / map.scale, map.pointer[1] + (arrow[1] * step) / map.scale];
      point(place);
      map.reveal(place);
    } else if (event.key === "+" || event.key === "=") map.zoom(1.25, map.toScreen(map.pointer));
    else if (event.key === "-") map.zoom(0.8, map.toScreen(map.pointer));
    else if (event.key === "0") map.reset();
    else if (event.key === "l" || event.key === "L") toggle();
    else if (event.key === "Enter") lasso.on ? tool.corner(map.pointer) : addPoint(here.z);
    else if (event.key === "Escape") lasso.on ? clear() : clearPath();
    else return;
    event.preventDefault();
  });
}
