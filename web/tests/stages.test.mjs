// Stops at every stage, memory that is not there, and memory given back, on WebGPU.

import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { assertNoWorker, launch, newPage } from './browser.mjs';
import { treeBytes } from './processor.mjs';
import { PADDING, serveSmallModel } from './small-model.mjs';

/** A stop is heard by a worker that is at work, or the worker is ended. */
const SOON_MS = 5000;

let model, server, browser;
before(async () => {
  model = await serveSmallModel('window112');
  server = model.server;
  browser = await launch();
});
beforeEach(() => model.reset());
after(async () => {
  await browser?.close();
  await model?.close();
});

async function inPage(work) {
  const page = await newPage(browser, server);
  await page.evaluate(async () => {
    const { Globe } = await import('/dist/globe.js');
    globalThis.Globe = Globe;
    globalThis.photo = await (await fetch('/golden/images/photo.jpg')).blob();
  });
  await work(page);
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

/** Loads, and stops in a stage; the code of the error, how long it took from the stop, and what came after it. */
const stopIn = (page, stage, options = {}) =>
  page.evaluate(async ({ stage, options }) => {
    const stopper = new AbortController();
    let stopped = 0;
    const later = [];
    const onProgress = (progress) => {
      if (stopped) later.push(progress.stage);
      else if (progress.stage === stage) {
        stopped = performance.now();
        stopper.abort();
      }
    };
    const loading = Globe.load({ url: '/model/', device: 'gpu', signal: stopper.signal, onProgress, ...(globalThis.files ? { url: undefined, files } : {}), ...options });
    const code = await loading.then((globe) => (globe.dispose(), 'loaded'), (error) => error.code);
    return { code, waited: performance.now() - stopped, later };
  }, { stage, options });

async function assertStopped(page, stage) {
  const { code, waited, later } = await stopIn(page, stage);
  assert.equal(code, 'Aborted', stage);
  assert.ok(waited < SOON_MS, `${stage}: ${waited} ms after the stop`);
  const order = ['fetch', 'verify', 'upload', 'compile'];
  assert.deepEqual(later.filter((name) => order.indexOf(name) > order.indexOf(stage)), [], `${stage}: nothing of later stages begins`);
  await assertNoWorker(page, stage);
}

test('a load stops at every stage', async (t) => {
  for (const stage of ['fetch', 'upload', 'compile']) {
    await t.test(stage, () => inPage(async (page) => {
      await assertStopped(page, stage);
      assert.equal((await stopIn(page, 'never')).code, 'loaded', 'the next load is whole');
    }));
  }
  await t.test('verify, of chosen files', () => inPage(async (page) => {
    await page.evaluate(async () => {
      const { files } = await (await fetch('/model/files.json')).json();
      const file = async (name) => new File([await (await fetch(`/model/${name}`)).arrayBuffer()], name);
      globalThis.files = await Promise.all(['files.json', ...files.map(({ name }) => name)].map(file));
    });
    await assertStopped(page, 'verify');
    assert.equal((await stopIn(page, 'never')).code, 'loaded');
  }));
  await t.test('verify, of what an earlier visit left', () => inPage(async (page) => {
    model.pad(12 << 20);
    let cut = true;
    server.faults[PADDING] = (bytes, request, response) => {
      if (!cut) return bytes;
      response.writeHead(request.headers.range ? 404 : 200, { 'content-length': request.headers.range ? 0 : bytes.length });
      if (request.headers.range) response.end();
      else response.write(bytes.subarray(0, 9 << 20), () => response.destroy());
      return null;
    };
    assert.equal((await stopIn(page, 'never')).code, 'Network', 'two pieces arrived');
    cut = false;
    await assertStopped(page, 'verify');
    assert.equal((await stopIn(page, 'never')).code, 'loaded');
  }));
});

test('a locate stops at every stage, and the next one is whole', async (t) => {
  // The image is computed after the first, the prompt after the second.
  for (const stage of ['prepared', 'encoded', 'prefilled', 'tokens']) {
    await t.test(stage, () => inPage(async (page) => {
      let begun = 0;
      page.on('worker', () => begun++);
      const got = await page.evaluate(async (stage) => {
        globalThis.globe = await Globe.load({ url: '/model/', device: 'gpu' });
        const stopper = new AbortController();
        let stopped = 0;
        const onEvent = ({ kind }) => {
          if (stopped || kind !== stage) return;
          stopped = performance.now();
          stopper.abort();
        };
        const locating = globe.locate(photo, { samples: 40, maxTokens: 400, signal: stopper.signal, onEvent });
        const code = await locating.then(() => 'located', (error) => error.code);
        const told = performance.now() - stopped;
        const again = await globe.locate(photo, { samples: 1, maxTokens: 3 });
        return { code, told, waited: performance.now() - stopped, samples: again.samples };
      }, stage);
      got.workers = begun;
      assert.deepEqual([got.code, got.samples], ['Aborted', 1]);
      assert.ok(got.told < SOON_MS / 5, `told ${got.told} ms after the stop`);
      // 40 answers of 400 tokens would take a minute.
      assert.ok(got.waited < SOON_MS, `the next one was answered ${got.waited} ms after the stop`);
      assert.equal(got.workers, 1, 'the model is the same');
    }));
  }
});

/** As a driver tells that it has no room: the error that no scope catches. */
const outOfMemory = (worker, when) => worker.evaluate((when) => {
  const { [when]: plain } = GPUDevice.prototype;
  GPUDevice.prototype[when] = function (...args) {
    GPUDevice.prototype[when] = plain;
    const error = new GPUOutOfMemoryError('no room');
    queueMicrotask(() => this.dispatchEvent(new GPUUncapturedErrorEvent('uncapturederror', { error })));
    return plain.apply(this, args);
  };
}, when);

test('no memory on the graphics processor is an error of its own, and everything is released', async (t) => {
  await t.test('while a model is loaded', () => inPage(async (page) => {
    page.on('worker', (worker) => void outOfMemory(worker, 'createBuffer').catch(() => undefined));
    const refused = await page.evaluate(() => Globe.load({ url: '/model/', device: 'gpu' }).then(() => 'loaded', ({ code, message }) => `${code}: ${message}`));
    assert.match(refused, /^DoesNotFit: the graphics processor ran out of memory; close other tabs, or use a smaller model or photo/);
    await assertNoWorker(page, 'out of memory');
  }));
  await t.test('while a photo is located', () => inPage(async (page) => {
    await page.evaluate(async () => (globalThis.globe = await Globe.load({ url: '/model/', device: 'gpu' })));
    const [worker] = page.workers();
    await worker.evaluate(() => {
      globalThis.destroyed = 0;
      const { destroy } = GPUDevice.prototype;
      GPUDevice.prototype.destroy = function () {
        globalThis.destroyed += 1;
        return destroy.call(this);
      };
    });
    await outOfMemory(worker, 'createCommandEncoder');
    const locate = () => page.evaluate(() => globe.locate(photo, { samples: 1, maxTokens: 4 }).then(() => 'located', ({ code }) => code));
    assert.equal(await locate(), 'DoesNotFit', 'no answer of broken numbers');
    assert.equal(await worker.evaluate(() => globalThis.destroyed), 1, 'the memory went back at once');
    assert.equal(await locate(), 'located', 'a photo that fits is answered, by another device');
    assert.notEqual(page.workers()[0], worker);
    assert.equal(page.workers().length, 1);

    // The one that waits was never begun.
    await outOfMemory(page.workers()[0], 'createCommandEncoder');
    const two = await page.evaluate(() => Promise.all([1, 2].map(() => globe.locate(photo, { samples: 1, maxTokens: 4 }).then(() => 'located', ({ code }) => code))));
    assert.deepEqual(two, ['DoesNotFit', 'located']);
  }));
});

/** Of the browser's processes. A module has 40 MiB of code and 78 MiB of memory: one that stays would be seen. */
const LEFT_BYTES = 64 << 20;

test('loading and disposing leaves no memory behind', () => inPage(async (page) => {
  const round = async () => {
    await page.evaluate(async () => {
      const globe = await Globe.load({ url: '/model/', device: 'gpu' });
      await globe.locate(photo, { samples: 1, maxTokens: 2 });
      globe.dispose();
    });
    await assertNoWorker(page, 'disposed');
    const session = await page.context().newCDPSession(page);
    await session.send('HeapProfiler.collectGarbage');
    await page.waitForTimeout(1000);
    return treeBytes();
  };
  await round();
  const first = await round();
  let last = first;
  for (let i = 0; i < 4; i++) last = await round();
  assert.ok(last - first < LEFT_BYTES, `${((last - first) / 2 ** 20).toFixed(0)} MiB more after four more rounds`);
}));
