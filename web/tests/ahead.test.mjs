// Kernels that an earlier visit needed are compiled while the model loads, and nothing else changes.

import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { launch, newPage } from './browser.mjs';
import { serveSmallModel } from './small-model.mjs';

let model, browser;
before(async () => {
  model = await serveSmallModel();
  browser = await launch();
});
beforeEach(() => {
  model.reset();
  model.inWorkers(countKernels);
});
after(async () => {
  await browser?.close();
  await model?.close();
});

/** Runs in the worker: `globalThis.counts` has how many of our kernels were compiled for one that waited, and ahead. */
function countKernels() {
  const counts = (globalThis.counts = { asked: 0, ahead: 0 });
  const { createComputePipeline, createComputePipelineAsync } = GPUDevice.prototype;
  GPUDevice.prototype.createComputePipeline = function (descriptor) {
    if (descriptor.layout === 'auto' && descriptor.compute.entryPoint === 'main') counts.asked += 1;
    return createComputePipeline.call(this, descriptor);
  };
  GPUDevice.prototype.createComputePipelineAsync = function (descriptor) {
    counts.ahead += 1;
    return createComputePipelineAsync.call(this, descriptor);
  };
}

/** Loads the model and asks about a photo: the counts when it was ready and when it had answered, and the answers. */
async function visit(page) {
  await page.evaluate(async () => {
    const { Globe } = await import('/dist/globe.js');
    globalThis.globe = await Globe.load({ url: '/model/', device: 'gpu' });
  });
  const counts = () => page.workers()[0].evaluate(() => ({ ...globalThis.counts }));
  const ready = await counts();
  const texts = await page.evaluate(async () => {
    const photo = await (await fetch('/golden/images/plain_56x84.png')).blob();
    const { answers } = await globe.locate(photo, { samples: 2, maxTokens: 6, seed: 3 });
    return answers.map(({ text }) => text);
  });
  return { ready, answered: await counts(), texts };
}

/** Runs `work` with the folder of stored models and the name of its list of kernels, while no worker writes. */
const kept = (page, work) => page.evaluate((work) => navigator.locks.request('globe-texts', async () => {
  const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('globe-models');
  const names = [];
  for await (const name of folder.keys()) if (name.startsWith('kernels-')) names.push(name);
  return new Function('folder', 'names', `return (${work})(folder, names)`)(folder, names);
}), String(work));

/** The list, or null while it is damaged. */
const list = (page) => kept(page, async (folder, [name]) => {
  const text = await (await (await folder.getFileHandle(name)).getFile()).text();
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
});

/** Ends the model, once what it learnt is kept. */
async function leave(page) {
  for (let i = 0; i < 50 && !(await list(page))?.later.length; i++) await page.waitForTimeout(100);
  await page.evaluate(() => globe.dispose());
  for (let i = 0; i < 50 && page.workers().length > 0; i++) await page.waitForTimeout(100);
}

async function inPage(work) {
  const page = await newPage(browser, model.server);
  await work(page);
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

test('a second visit waits for no kernel, and answers alike', () => inPage(async (page) => {
  const first = await visit(page);
  assert.equal(first.answered.ahead, 0);
  assert.ok(first.ready.asked > 5 && first.answered.asked > first.ready.asked, JSON.stringify(first));
  await leave(page);
  const { start, later } = await list(page);
  assert.equal(start.length, first.ready.asked);
  assert.equal(start.length + later.length, first.answered.asked);

  const second = await visit(page);
  assert.deepEqual(second.texts, first.texts);
  assert.ok(second.texts.every((text) => text.length > 0));
  assert.equal(second.answered.asked, 0, 'a kernel was compiled when it was asked for');
  assert.equal(second.answered.ahead, first.answered.asked);
}));

test('a damaged list of kernels costs time alone, and is mended', async (t) => {
  const damages = {
    'half a text': async (folder, [name]) => {
      const file = await (await folder.getFileHandle(name)).createWritable();
      await file.write('{"start":["');
      await file.close();
    },
    'kernels that do not compile': async (folder, [name]) => {
      const file = await (await folder.getFileHandle(name)).createWritable();
      await file.write(JSON.stringify({ start: ['fn', '@compute @workgroup_size(1) fn other() {}'], later: [''] }));
      await file.close();
    },
    'something else': async (folder, [name]) => {
      const file = await (await folder.getFileHandle(name)).createWritable();
      await file.write(JSON.stringify({ start: [1, 2], later: 'x' }));
      await file.close();
    },
  };
  for (const [what, damage] of Object.entries(damages)) {
    await t.test(what, () => inPage(async (page) => {
      const first = await visit(page);
      await leave(page);
      const before = await list(page);
      await kept(page, damage);
      const again = await visit(page);
      assert.deepEqual(again.texts, first.texts);
      assert.equal(again.answered.asked, first.answered.asked);
      await leave(page);
      assert.deepEqual(await list(page), before);
    }));
  }
});

test('the list is deleted with the model', () => inPage(async (page) => {
  await visit(page);
  await leave(page);
  assert.equal(await kept(page, (_, names) => names.length), 1);
  await page.evaluate(async () => {
    const { Globe } = await import('/dist/globe.js');
    await Globe.remove('/model/');
  });
  assert.equal(await kept(page, (_, names) => names.length), 0);
}));
