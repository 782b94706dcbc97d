// Bundles the page's script and style and packs the ONNX runtime into src/vaekit/explore/assets, where `vaekit explore` takes them from.
import { build } from "esbuild";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";

const out = new URL("../src/vaekit/explore/assets/", import.meta.url);
const common = { bundle: true, minify: true, write: false, legalComments: "none", charset: "ascii", logLevel: "warning" };

const script = await build({
  ...common,
  entryPoints: ["src/main.js"],
  format: "esm",
  target: "es2022",
  // the build for one processor core with SIMD, its loader inside: a page from disk cannot fetch a second file
  alias: { "onnxruntime-web": "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs" },
});
const style = await build({ ...common, entryPoints: ["src/page.css"] });
const files = {
  "explorer.js": script.outputFiles[0].text,
  "explorer.css": style.outputFiles[0].text,
  "body.html": await readFile("src/body.html", "utf8"),
  "runtime.wasm.gz": gzipSync(await readFile("node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm"), { level: 9 }),
  "LICENSE-onnxruntime.txt": "onnxruntime-web, MIT License, Copyright (c) Microsoft Corporation\n\n" + (await license()),
};
for (const end of [/<\/script/i, /<!--/]) {
  if (end.test(files["explorer.js"])) throw new Error(`the script holds ${end}, which would end it inside a page`);
}
await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });
for (const [name, content] of Object.entries(files)) {
  await writeFile(new URL(name, out), content);
  console.log(`${name.padEnd(24)} ${(Buffer.byteLength(content) / 1e6).toFixed(2)} MB`);
}

async function license() {
  const known = JSON.parse(await readFile("node_modules/onnxruntime-web/package.json", "utf8"));
  return `version ${known.version}, ${known.homepage ?? "https://onnxruntime.ai"}, license ${known.license}\n`;
}
