// What a visitor downloads before any model; an error if the module is above its budget.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

const BUDGET = 3 << 20; // 3 MiB, gzipped
const dist = join(import.meta.dirname, '../dist');

const sizes = Object.fromEntries(
  ['globe_web_bg.wasm', 'worker.js', 'globe.js', 'element.js', 'gazetteer.gaz', 'countries-50m.json'].map((name) => {
    const bytes = readFileSync(join(dist, name));
    return [name, { bytes: bytes.length, gzipped: gzipSync(bytes, { level: 9 }).length }];
  }),
);
console.table(sizes);
const { gzipped } = sizes['globe_web_bg.wasm'];
if (gzipped > BUDGET) {
  console.error(`the module has ${gzipped} bytes gzipped, its budget is ${BUDGET}`);
  process.exit(1);
}
