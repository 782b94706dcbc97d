// Colours of points: classes by hue, numbers along a scale that grows evenly lighter.

const dark = matchMedia("(prefers-color-scheme: dark)");
export const isDark = () => dark.matches;
export const onScheme = (call) => dark.addEventListener("change", call);

// at least 3 : 1 on the map's ground, in either scheme
const LIGHT = ["#1f6fb5", "#c4540a", "#1f7f3a", "#c22b2b", "#7d55b0", "#8a5a44", "#c2459b", "#5f6770", "#857400", "#00808c"];
const DARK = ["#5aa9f0", "#ff9a4d", "#5fce7a", "#ff7b72", "#b794f4", "#c9987f", "#f08bd0", "#a7b0ba", "#d9c74a", "#3ccfdb"];

export function classColour(n, classes) {
  if (classes <= 10) return hex((isDark() ? DARK : LIGHT)[n]);
  const hue = (n * 137.508) % 360; // the golden angle keeps neighbours apart
  return hsl(hue, isDark() ? 0.65 : 0.7, isDark() ? 0.5 + 0.2 * (n % 3) * 0.5 : 0.28 + 0.07 * (n % 3));
}

// viridis, at five places
const STOPS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

export function scaleColour(share) {
  let t = Math.min(1, Math.max(0, share));
  t = isDark() ? 0.35 + 0.65 * t : 0.8 * t; // what would be lost in the ground is left out
  const place = t * (STOPS.length - 1);
  const k = Math.min(STOPS.length - 2, Math.floor(place));
  return STOPS[k].map((low, c) => Math.round(low + (STOPS[k + 1][c] - low) * (place - k)));
}

export const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;
export const packed = ([r, g, b]) => (0xff000000 | (b << 16) | (g << 8) | r) >>> 0; // as little-endian memory has it

const hex = (text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));

function hsl(h, s, l) {
  const a = s * Math.min(l, 1 - l);
  return [0, 8, 4].map((n) => {
    const k = (n + h / 30) % 12;
    return Math.round(255 * (l - a * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  });
}
