// What a model holds does not grow with the photos it has seen, on WebGPU and on the CPU path.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after as afterAll, before as beforeAll, test } from 'node:test';
import { GOLDEN, WEB, launch, newPage } from './browser.mjs';
import { serve } from './server.mjs';

/**
 * Calls before and after the mark. Those before fill caches and pools: on WebGPU the last of them takes 13 KiB
 * at the 126th call, then nothing until the 600th. Those after must leave nothing behind.
 */
const CALLS = { gpu: [200, 200], cpu: [5, 20] };
/** Calls from one look at the memory to the next. */
const LOOK = 5;
/** On the heap after the mark: the last result, whose text is not always equally long. */
const KEPT_BYTES = 1 << 10;
/** Photos of three sizes in turn, so that buffers of several sizes come and go. */
const PHOTOS = ['small_40x30.png', 'odd_187x131.png', 'photo.jpg'];

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
    const uses = await page.evaluate(async ({ device, calls, look, names }) => {
      const { Globe } = await import('/dist/globe.js');
      const globe = await Globe.load({ url: '/golden/untied/', device });
      const photos = await Promise.all(names.map(async (name) => (await fetch(`/golden/images/${name}`)).blob()));
      // The prompt is short so that SwiftShader gets through four hundred of them.
      const options = { samples: 1, maxTokens: 2, maxPixels: 56 * 56, prompt: 'Where?', system: '' };
      const uses = [];
      for (let n = 1; n <= calls; n++) {
        await globe.locate(photos[n % photos.length], { ...options, seed: n });
        if (n % look === 0) uses.push(await globe.memory());
      }
      globe.dispose();
      return uses;
    }, { device, calls: before + after, look: LOOK, names: PHOTOS });
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
