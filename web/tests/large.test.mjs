// A model of the published 7B sizes is fetched, verified, kept and uploaded with little of it in memory at any moment.
//
// LAYERS=28 BLOCKS=32 node --test tests/large.test.mjs takes the whole model, 5 GB, as `cargo xtask web test-7b` does.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { WEB, launchProfile, newPageIn } from './browser.mjs';
import { mockUploads } from './mock-gpu.mjs';
import { serve } from './server.mjs';
import { serveSparse, sparseModel } from './sparse.mjs';

/** Of the wasm module, whatever the model's size. */
const MAX_WASM_BYTES = 0.7 * 2 ** 30;
/** Without these variables, one layer: every array has its real size, only fewer of them follow each other. */
const [LAYERS, BLOCKS] = [Number(process.env.LAYERS ?? 1), Number(process.env.BLOCKS ?? 1)];

test(`a 7B model with ${LAYERS} of 28 layers loads within 0.7 GiB of wasm memory`, async (t) => {
  const profile = mkdtempSync(join(tmpdir(), 'globe-profile-'));
  const model = sparseModel(LAYERS, BLOCKS);
  const server = await serve({ '/dist/': join(WEB, 'dist') });
  serveSparse(server, '/large/', model);
  server.beforeWorker(`(${mockUploads})()`);
  const browser = await launchProfile(profile);
  try {
    const page = await newPageIn(browser, server);
    page.setDefaultTimeout(3_600_000);
    const load = () => page.evaluate(async () => {
      const { Globe } = await import('/dist/globe.js');
      const stages = {};
      const globe = await Globe.load({ url: '/large/', device: 'gpu', onProgress: ({ stage, done, total }) => (stages[stage] = { done, total }) });
      globalThis.globe = globe;
      return { info: globe.info, memory: await globe.memory(), stages };
    });
    const uploads = () => page.workers().at(-1).evaluate(() => globalThis.uploads);
    const { total_bytes: total, shards, tensors } = model.manifest;
    const largest = Math.max(...tensors.flatMap(({ parts }) => parts.map(({ words }) => words.size)));

    const fetched = await load();
    const first = await uploads();
    await page.evaluate(() => globe.dispose());
    server.requests.length = 0;
    const stored = await load();
    const second = await uploads();
    assert.deepEqual(server.requests.filter(({ path }) => shards.some(({ name }) => path.endsWith(name))), [], 'the second load asks for no weights');

    for (const [what, { info, memory, stages }, written] of [['fetched', fetched, first], ['stored', stored, second]]) {
      t.diagnostic(`${what}: ${(total / 1e9).toFixed(2)} GB in ${(info.loadMs / 1000).toFixed(1)} s; wasm ${mib(memory.wasmBytes)}, heap at most ${mib(memory.heapPeakBytes)}; ${mib(written.written)} written, ${mib(written.largestWrite)} at once`);
      assert.deepEqual([info.verified, info.storage, info.device], [true, 'opfs', 'gpu']);
      assert.equal(stages.fetch.done, stages.fetch.total, 'every byte was counted once');
      assert.ok(memory.wasmBytes <= MAX_WASM_BYTES, `${what}: ${mib(memory.wasmBytes)} of wasm memory`);
      assert.ok(memory.heapPeakBytes < largest, `${what}: no array is on the heap as a whole, ${mib(memory.heapPeakBytes)} were`);
      assert.ok(written.written >= tensors.flatMap(({ parts }) => parts).reduce((sum, { words, scales }) => sum + words.size + (scales?.size ?? 0), 0), 'every array was uploaded');
    }
    assert.deepEqual(page.faults, []);
  } finally {
    await browser.close();
    await server.close();
    rmSync(profile, { recursive: true, force: true });
  }
});

const mib = (bytes) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
