// The page's data: JSON, and base64 of gzip in script elements that nothing executes.

export const about = JSON.parse(document.getElementById("about").textContent);

export async function inflate(name) {
  const element = document.getElementById(`block-${name}`);
  const text = atob(element.textContent);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  element.remove(); // its text is not needed twice
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export const has = (name) => name in about.blocks;

export async function array(name) {
  const bytes = await inflate(name);
  const { dtype } = about.blocks[name];
  return dtype === "f4" ? new Float32Array(bytes.buffer) : new Uint16Array(bytes.buffer);
}

// Codes come dimension by dimension in even steps; they leave as numbers [N, D], row by row.
export async function codes() {
  const { shape, low, step } = about.blocks.z;
  const [D, N] = shape;
  const numbers = await array("z");
  const z = new Float32Array(N * D);
  for (let d = 0; d < D; d++) for (let i = 0; i < N; i++) z[i * D + d] = low[d] + step[d] * numbers[d * N + i];
  return z;
}
