// The package and a small model with a list of its files, served from one place.

import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { listFiles } from '../scripts/list-files.mjs';
import { GOLDEN, WEB } from './browser.mjs';
import { serve } from './server.mjs';

/** Bytes that a loader asks for at once. */
export const PIECE = 4 << 20;
export const PADDING = '/model/padding.bin';

/** Of one of the goldens. */
export async function serveSmallModel(golden = 'untied') {
  const model = mkdtempSync(join(tmpdir(), 'globe-model-'));
  await listFiles(join(GOLDEN, golden), model);
  const server = await serve({ '/dist/': join(WEB, 'dist'), '/model/': model, '/golden/': GOLDEN });
  return {
    server,
    folder: model,
    /** As it was before the first test. */
    reset() {
      server.faults = {};
      server.files = {};
      server.requests.length = 0;
    },
    /** Adds a file of `size` bytes `fill` to the model, which no loader reads. */
    pad(size, fill = 7) {
      const big = Buffer.alloc(size, fill);
      const manifest = JSON.parse(readFileSync(join(model, 'files.json'), 'utf8'));
      manifest.files.unshift({ name: 'padding.bin', size, sha256: createHash('sha256').update(big).digest('hex') });
      server.files['/model/files.json'] = Buffer.from(JSON.stringify(manifest));
      server.files[PADDING] = big;
    },
    /** Runs `work` before the engine in the first `count` workers; in all if it is not given. */
    inWorkers(work, count) {
      server.beforeWorker(`(${work})()`, count);
    },
    async close() {
      await server.close();
      rmSync(model, { recursive: true, force: true });
    },
  };
}
