// What a model holds does not grow with the photos it has seen, each a new one, on WebGPU and on the CPU path.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after as afterAll, before as beforeAll, test } from 'node:test';
import { GOLDEN, WEB, launch, newPage } from './browser.mjs';
import { serve } from './server.mjs';

/** Calls before and after the mark: those after must leave nothing behind. */
const CALLS = { gpu: [60, 200], cpu: [5, 20] };
/**
 * Prompts of as many lengths come first: they fill CubeCL's cache of launch parameters, 512 entries whose table doubles
 * for the last time, by 13 KiB, with the 449th, after 70 or 300 photos.
 */
const LENGTHS = 80;
/** Calls from one look at the memory to the next. */
const LOOK = 5;
/** On the heap after the mark: caches take in and forget single entries. */
const KEPT_BYTES = 1 << 10;
/** Sizes of the photos in turn, so that buffers of several sizes come and go. */
const SIZES = [[40, 30], [187, 131], [240, 180]];

let server, browser;
beforeAll(async () => {
  server = await serve({ '/dist/': join(WEB, 'dist'), '/golden/': GOLDEN });
  browser = await launch();
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
});

/** The most of one figure in some looks. */
const most = (uses, field) => Math.max(...uses.map((use) => use[field]));

for (const [device, [before, after]] of Object.entries(CALLS)) {
  test(`${after} locates grow nothing (${device})`, async (t) => {
    const page = await newPage(browser, server);
    const uses = await page.evaluate(async ({ device, calls, look, sizes, lengths }) => {
      const { Globe } = await import('/dist/globe.js');
      const globe = await Globe.load({ url: '/golden/untied/', device });
      const photo = (n) => {
        const [width, height] = sizes[n % sizes.length];
        const canvas = new OffscreenCanvas(width, height);
        const context = canvas.getContext('2d');
        context.fillStyle = `hsl(${n} 80% 50%)`;
        context.fillRect(0, 0, width / 2, height);
        return canvas.convertToBlob({ type: 'image/png' });
      };
      // The prompt is short so that SwiftShader gets through hundreds of them.
      const options = { samples: 1, maxTokens: 2, maxPixels: 56 * 56, prompt: 'Where?', system: '' };
      const uses = [];
      for (let n = 1; n <= lengths; n++) await globe.logits([], 'a '.repeat(n), 1);
      for (let n = 1; n <= calls; n++) {
        await globe.locate(await photo(n), { ...options, seed: n });
        if (n % look !== 0) continue;
        await globe.forget(); // what is kept of photos is kept on purpose, up to a limit
        uses.push(await globe.memory());
      }
      globe.dispose();
      return uses;
    }, { device, calls: before + after, look: LOOK, sizes: SIZES, lengths: LENGTHS });
    const [filled, then] = [uses.slice(0, before / LOOK), uses.slice(before / LOOK)];
    for (const use of [filled.at(-1), then.at(-1)]) t.diagnostic(JSON.stringify(use));
    assert.ok(uses[0].heapBytes > 1 << 20 && uses[0].heapPeakBytes >= uses[0].heapBytes, 'the heap is counted');
    assert.equal(uses[0].deviceBytes > 0, device === 'gpu');
    assert.equal(most(then, 'wasmBytes'), filled.at(-1).wasmBytes, 'wasm memory grew');
    assert.deepEqual(new Set(then.map((use) => use.deviceBytes)), new Set([filled[0].deviceBytes]), 'tensors were left');
    assert.ok(most(then, 'deviceReservedBytes') <= most(filled, 'deviceReservedBytes'), 'the driver gave more');
    const grown = most(then, 'heapBytes') - most(filled, 'heapBytes');
    assert.ok(grown <= KEPT_BYTES, `${grown} more bytes on the heap`);
    assert.deepEqual(page.faults, []);
    await page.context().close();
  });
}
