// What a visitor downloads before any model; an error if the module is above its budget.

import { execFileSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { join } from 'node:path';

const BUDGET = 3_000_000; // gzipped
const MOST = 64 << 20; // of what gzip may answer
const dist = join(import.meta.dirname, '../dist');

const sizes = Object.fromEntries(
  ['globe_web_bg.wasm', 'worker.js', 'globe.js', 'element.js', 'gazetteer.gaz', 'countries-50m.json'].map((name) => {
    const path = join(dist, name);
    // As a site would prepare them: the compressor within Node takes 1.5 % more.
    const gzipped = execFileSync('gzip', ['-9', '-c', path], { maxBuffer: MOST }).length;
    return [name, { bytes: statSync(path).size, gzipped }];
  }),
);
console.table(sizes);
const { gzipped } = sizes['globe_web_bg.wasm'];
if (gzipped > BUDGET) {
  console.error(`the module has ${gzipped} bytes gzipped, its budget is ${BUDGET}`);
  process.exit(1);
}
