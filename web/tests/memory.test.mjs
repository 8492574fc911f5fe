// What a model holds does not grow with the photos it has seen, on WebGPU and on the CPU path.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { GOLDEN, WEB, launch, newPage } from './browser.mjs';
import { serve } from './server.mjs';

/** Two hundred on WebGPU: the first of them fill caches and pools, the others must leave nothing behind. */
const ROUNDS = { gpu: [60, 140], cpu: [5, 20] };
/** On the heap: the last result, whose text is not always equally long, and what a cache of kernels takes late. */
const KEPT_BYTES = 16 << 10;
/** Photos of three sizes in turn, so that buffers of several sizes come and go. */
const PHOTOS = ['small_40x30.png', 'odd_187x131.png', 'photo.jpg'];

let server, browser;
before(async () => {
  server = await serve({ '/dist/': join(WEB, 'dist'), '/golden/': GOLDEN });
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.close();
});

for (const [device, rounds] of Object.entries(ROUNDS)) {
  test(`${rounds[0] + rounds[1]} locates grow nothing (${device})`, async (t) => {
    const page = await newPage(browser, server);
    const uses = await page.evaluate(async ({ device, rounds, names }) => {
      const { Globe } = await import('/dist/globe.js');
      const globe = await Globe.load({ url: '/golden/untied/', device });
      const photos = await Promise.all(names.map(async (name) => (await fetch(`/golden/images/${name}`)).blob()));
      // The prompt is short so that SwiftShader gets through two hundred of them.
      const options = { samples: 1, maxTokens: 2, maxPixels: 56 * 56, prompt: 'Where?', system: '' };
      const uses = [];
      let n = 0;
      for (const round of rounds) {
        for (let i = 0; i < round; i++) await globe.locate(photos[n++ % photos.length], { ...options, seed: n });
        uses.push(await globe.memory());
      }
      globe.dispose();
      return uses;
    }, { device, rounds, names: PHOTOS });
    const [first, last] = uses;
    for (const use of uses) t.diagnostic(JSON.stringify(use));
    assert.ok(first.heapBytes > 1 << 20 && first.heapPeakBytes >= first.heapBytes, 'the heap is counted');
    assert.equal(first.deviceBytes > 0, device === 'gpu');
    assert.equal(last.wasmBytes, first.wasmBytes, 'wasm memory grew');
    assert.equal(last.deviceBytes, first.deviceBytes, 'tensors were left on the device');
    assert.ok(last.deviceReservedBytes <= first.deviceReservedBytes, 'the driver gave more');
    const grown = last.heapBytes - first.heapBytes;
    assert.ok(grown <= KEPT_BYTES, `${grown} more bytes on the heap`);
    assert.deepEqual(page.faults, []);
    await page.context().close();
  });
}
