// The engine in the tab: the tokens of the goldens, stops at every stage, memory given back.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { WEB, GOLDEN, assertNoWorker, launch, newPage } from './browser.mjs';
import { golden } from './golden.mjs';
import { serve } from './server.mjs';

/** Of the largest logit: the reference itself is uncertain by up to 6e-6 of it, and Tint rounds its own way. */
const LOGIT_TOL = 1e-4;

let server, browser;
before(async () => {
  server = await serve({ '/dist/': join(WEB, 'dist'), '/golden/': GOLDEN });
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.close();
});

function assertLogits(name, got, expected) {
  const scale = Math.max(...expected.map(Math.abs));
  assert.equal(got.length, expected.length, name);
  const worst = Math.max(...got.map((x, i) => Math.abs(x - expected[i]))) / scale;
  assert.ok(worst <= LOGIT_TOL, `${name}: largest error ${worst} of the largest logit`);
}

async function compare(name, device) {
  const { facts, tensor } = await golden(name);
  const page = await newPage(browser, server);
  const got = await page.evaluate(async ({ name, facts, device }) => {
    const { Globe } = await import('/dist/globe.js');
    const globe = await Globe.load({ url: `/golden/${name}/`, device });
    const images = await Promise.all(facts.images.map(async (image) => (await fetch(`/golden/${image}`)).blob()));
    const withImages = await globe.logits(images, facts.prompt, 32, facts.system);
    const textOnly = await globe.logits([], facts.text_only_prompt, 32);
    const { info } = globe;
    globe.dispose();
    return { withImages, textOnly, info };
  }, { name, facts, device });
  assert.equal(got.info.device, device);
  for (const [prefix, result] of [['', got.withImages], ['text_only.', got.textOnly]]) {
    assert.deepEqual(result.input_ids, tensor(`${prefix}input_ids`), `${name}: ids`);
    assertLogits(`${name}: ${prefix}logits`, result.last_logits, tensor(`${prefix}last_logits`));
    assert.deepEqual(result.greedy, tensor(`${prefix}greedy`), `${name}: ${prefix}greedy tokens`);
  }
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

test('tokens and logits match the goldens on WebGPU', async (t) => {
  const names = ['untied', 'tied', 'deep', 'head128', 'window56', 'window112', 'two_images'];
  for (const name of names) await t.test(name, () => compare(name, 'gpu'));
});

test('tokens and logits match the goldens on the CPU path', () => compare('untied', 'cpu'));

test('no export runs the static constructors again', async () => {
  const module = await WebAssembly.compile(await readFile(join(WEB, 'pkg/globe_web_bg.wasm')));
  const exports = WebAssembly.Module.exports(module).map(({ name }) => name);
  assert.ok(exports.some((name) => name.startsWith('webengine_')), 'the module is ours');
  assert.deepEqual(exports.filter((name) => name.includes('command_export')), []);
  // The shims keep their name in the name section, where the build keeps that.
  for (const section of WebAssembly.Module.customSections(module, 'name')) {
    assert.ok(!Buffer.from(section).includes('command_export'), 'a function is called command_export');
  }
});

/** Runs `work(globe, photo, arg)` in a page with a loaded model. */
async function withGlobe(work, { device = 'gpu', arg, hook } = {}) {
  const page = await newPage(browser, server);
  hook?.(page);
  const got = await page.evaluate(`(async () => {
    const { Globe } = await import('/dist/globe.js');
    globalThis.globe = await Globe.load({ url: '/golden/window112/', device: '${device}' });
    const photo = await (await fetch('/golden/images/photo.jpg')).blob();
    return (${work})(globe, photo, ${JSON.stringify(arg ?? null)});
  })()`);
  assert.deepEqual(page.faults, []);
  await page.context().close();
  return got;
}

test('equal seeds give equal answers, and tokens arrive in order', async () => {
  const { results, ids } = await withGlobe(async (globe, photo) => {
    const results = [];
    const ids = [];
    for (const seed of [7, 7, 8]) {
      const onEvent = (event) => event.kind === 'tokens' && seed === 8 && ids.push(...event.ids);
      results.push(await globe.locate(photo, { samples: 2, maxTokens: 10, seed, onEvent }));
    }
    return { results, ids };
  });
  const [a, b, c] = results.map(({ answers }) => answers.map(({ text }) => text));
  assert.deepEqual(a, b);
  assert.notDeepEqual(a, c);
  assert.equal(ids.length, results[2].answers.reduce((sum, { tokens, stop }) => sum + tokens - (stop === 'end_of_text' ? 1 : 0), 0));
});

test('tokens reach the page in batches', async () => {
  const { batches, ids, tokens } = await withGlobe(async (globe, photo) => {
    await globe.locate(photo, { samples: 1, maxTokens: 4 }); // compiles what is left to compile
    let [batches, ids] = [0, 0];
    const onEvent = (event) => {
      if (event.kind !== 'tokens') return;
      batches += 1;
      ids += event.ids.length;
    };
    const { answers } = await globe.locate(photo, { samples: 8, batch: 8, maxTokens: 48, seed: 7, onEvent });
    return { batches, ids, tokens: answers.reduce((sum, { tokens, stop }) => sum + tokens - (stop === 'end_of_text' ? 1 : 0), 0) };
  });
  assert.equal(ids, tokens, 'every token arrives once');
  assert.ok(batches < ids / 2, `${ids} tokens in ${batches} messages`);
});

test('an answer can be stopped, on WebGPU and on the CPU path, and the model goes on', async (t) => {
  for (const device of ['gpu', 'cpu']) {
    await t.test(device, async () => {
      const got = await withGlobe(async (globe, photo) => {
        const stopper = new AbortController();
        const begun = performance.now();
        let stoppedAt = 0;
        const onToken = () => {
          stoppedAt ||= performance.now();
          stopper.abort();
        };
        const code = await globe.locate(photo, { samples: 50, maxTokens: 400, signal: stopper.signal, onToken }).catch((error) => error.code);
        const again = await globe.locate(photo, { samples: 1, maxTokens: 3 });
        const waited = performance.now() - stoppedAt;
        const already = await globe.locate(photo, { signal: AbortSignal.abort() }).catch((error) => error.code);
        return { code, waited, samples: again.samples, already, begun };
      }, { device });
      assert.equal(got.code, 'Aborted');
      // 50 answers of 400 tokens would take longer; the CPU path loads the model again.
      assert.ok(got.waited < 10_000, `the next one was answered ${got.waited} ms after the stop`);
      assert.equal(got.samples, 1);
      assert.equal(got.already, 'Aborted');
    });
  }
});

test('one of two calls is stopped while it waits, and the other one is answered', async (t) => {
  for (const device of ['gpu', 'cpu']) await t.test(device, () => stopSecond(device));
});

async function stopSecond(device) {
  const got = await withGlobe(async (globe, photo) => {
    const first = globe.locate(photo, { samples: 1, maxTokens: 400, seed: 5 });
    const stopper = new AbortController();
    const second = globe.locate(photo, { samples: 1, signal: stopper.signal }).catch(({ code }) => code);
    await new Promise((done) => setTimeout(done, 50));
    const stopped = performance.now();
    stopper.abort();
    const code = await second;
    const waited = performance.now() - stopped;
    return { code, waited, samples: (await first).samples, third: (await globe.locate(photo, { samples: 1, maxTokens: 2 })).samples };
  }, { device });
  assert.deepEqual([got.code, got.samples, got.third], ['Aborted', 1, 1]);
  // On the CPU path a worker at work hears nothing: it is ended, and the first call begins anew.
  assert.ok(got.waited < (device === 'gpu' ? 1000 : 5000), `told after ${got.waited} ms`);
}

test('a call that was stopped while it waited does not hurt the one before it, however long that takes', async () => {
  const stallMs = 2500;
  const page = await loadedPage({ stallMs });
  let begun = 0;
  page.on('worker', () => begun++);
  const got = await page.evaluate(async () => {
    const photo = await (await fetch('/golden/images/photo.jpg')).blob();
    const first = globe.locate(photo, { samples: 8, batch: 1, maxTokens: 400, seed: 5 });
    const stopper = new AbortController();
    const second = globe.locate(photo, { samples: 1, signal: stopper.signal }).catch(({ code }) => code);
    setTimeout(() => stopper.abort(), 100);
    const code = await second;
    const stopped = performance.now();
    return { code, samples: (await first).samples, took: performance.now() - stopped };
  });
  assert.deepEqual([got.code, got.samples, begun], ['Aborted', 8, 0]);
  assert.ok(got.took > stallMs, `answered ${got.took} ms after the stop: too soon to say anything`);
  await page.context().close();
});

test('dispose ends the worker at any time, and calls after it are refused', async () => {
  const got = await withGlobe(async (globe, photo) => {
    const running = globe.locate(photo, { samples: 50, maxTokens: 400 }).catch((error) => error.code);
    await new Promise((done) => setTimeout(done, 300));
    globe.dispose();
    globe.dispose();
    const after = await globe.locate(photo).catch((error) => error.code);
    return { running: await running, after };
  });
  assert.deepEqual(got, { running: 'Aborted', after: 'Aborted' });
});

/** A page with a model, whose device a test may take away. */
async function loadedPage(options = {}) {
  const page = await newPage(browser, server);
  await page.evaluate(async (options) => {
    const { Globe } = await import('/dist/globe.js');
    globalThis.globe = await Globe.load({ url: '/golden/window112/', device: 'gpu', ...options });
  }, options);
  return page;
}

/** The device of a worker is lost as soon as it is given work. */
const lose = (worker) => worker.evaluate(() => {
  const queue = GPUQueue.prototype;
  const { submit } = queue;
  const make = GPUDevice.prototype.createCommandEncoder;
  GPUDevice.prototype.createCommandEncoder = function (...args) {
    const encoder = make.apply(this, args);
    queue.submit = function (...args) {
      submit.apply(this, args);
      device.destroy();
    };
    const device = this;
    return encoder;
  };
});

test('a model that is disposed of while it is loaded once more leaves no worker behind', async () => {
  const page = await loadedPage();
  await lose(page.workers()[0]);
  const rebuilt = page.waitForEvent('worker');
  const code = page.evaluate(async () => {
    const photo = await (await fetch('/golden/images/photo.jpg')).blob();
    return globe.locate(photo, { samples: 1 }).catch(({ code }) => code);
  });
  await rebuilt;
  await page.evaluate(() => globe.dispose());
  assert.equal(await code, 'Aborted');
  await assertNoWorker(page, 'disposed of');
  await page.context().close();
});

test('a graphics processor that never answers is given up some time after a stop, and the next call has another', async () => {
  const stallMs = 5000;
  const page = await loadedPage({ stallMs });
  const [silent] = page.workers();
  await silent.evaluate(() => {
    GPUBuffer.prototype.mapAsync = () => new Promise(() => {});
  });
  const got = await page.evaluate(async () => {
    const photo = await (await fetch('/golden/images/photo.jpg')).blob();
    const stopper = new AbortController();
    const prepared = Promise.withResolvers();
    const first = globe.locate(photo, { samples: 1, signal: stopper.signal, onEvent: prepared.resolve }).catch(({ code }) => code);
    await prepared.promise;
    stopper.abort();
    const begin = performance.now();
    const second = globe.locate(photo, { samples: 1, maxTokens: 2 });
    const code = await first;
    const told = performance.now() - begin;
    return { code, told, samples: (await second).samples, waited: performance.now() - begin };
  });
  assert.deepEqual([got.code, got.samples], ['Aborted', 1]);
  assert.ok(got.told < 1000 && got.waited >= stallMs, `told after ${got.told} ms, answered after ${got.waited}`);
  assert.equal(page.workers().length, 1);
  assert.notEqual(page.workers()[0], silent);
  await page.context().close();
});

test('two calls that lose the device share one rebuilt model', async () => {
  const page = await loadedPage();
  await lose(page.workers()[0]);
  let begun = 0;
  page.on('worker', () => begun++);
  const samples = await page.evaluate(async () => {
    const photo = await (await fetch('/golden/images/photo.jpg')).blob();
    const locate = () => globe.locate(photo, { samples: 1, maxTokens: 3 });
    return (await Promise.all([locate(), locate()])).map(({ samples }) => samples);
  });
  assert.deepEqual(samples, [1, 1]);
  assert.equal(begun, 1, 'one more worker');
  assert.equal(page.workers().length, 1, 'and the lost one is gone');
  await page.context().close();
});

test('a lost device is rebuilt once, and lost again it is an error', async () => {
  const page = await loadedPage();
  const locate = () => page.evaluate(async () => {
    const photo = await (await fetch('/golden/images/photo.jpg')).blob();
    return globe.locate(photo, { samples: 1, maxTokens: 3 }).then(({ samples }) => samples, ({ code, message }) => `${code}: ${message}`);
  });
  const first = page.workers()[0];
  await lose(first);
  assert.equal(await locate(), 1, 'rebuilt, and answered');
  assert.notEqual(page.workers()[0], first, 'by another worker');

  page.on('worker', (worker) => void worker.evaluate(() => {
    // The rebuilt device is lost as well, as soon as the model is loaded.
    const { requestDevice } = GPUAdapter.prototype;
    GPUAdapter.prototype.requestDevice = async function (...args) {
      const device = await requestDevice.apply(this, args);
      setTimeout(() => device.destroy(), 50);
      return device;
    };
  }).catch(() => undefined));
  await lose(page.workers()[0]);
  assert.match(await locate(), /^DeviceLost: the graphics processor stopped/);
  await page.context().close();
});

test('without WebGPU small models run on the CPU path, and the probe says so', async () => {
  const plain = await launch({ webgpu: false });
  const page = await newPage(plain, server);
  const got = await page.evaluate(async () => {
    // Chromium on Linux shows the API even where it finds no adapter.
    const { Globe } = await import('/dist/globe.js');
    const probe = await Globe.probe('/golden/untied/');
    const forced = await Globe.load({ url: '/golden/untied/', device: 'gpu' }).catch((error) => error.code);
    const globe = await Globe.load({ url: '/golden/untied/' });
    const photo = await (await fetch('/golden/images/photo.jpg')).blob();
    const { samples } = await globe.locate(photo, { samples: 1, maxTokens: 3 });
    return { probe, forced, device: globe.info.device, samples };
  });
  await plain.close();
  assert.equal(got.probe.fits, true);
  assert.equal(got.probe.device, 'cpu');
  assert.equal(got.probe.code, 'NoWebGpu');
  assert.deepEqual([got.forced, got.device, got.samples], ['NoWebGpu', 'cpu', 1]);
});

test('options out of range are named', async () => {
  const messages = await withGlobe(async (globe, photo) => {
    const wrong = [{ samples: 0 }, { sampling: { top_p: 0 } }, { precision: 'street' }, { maxTokens: 1e9 }];
    return Promise.all(wrong.map((options) => globe.locate(photo, options).catch(({ code, message }) => `${code}: ${message}`)));
  }, { device: 'cpu' });
  const expected = [/^Option: samples is 0, expected at least 1/, /^Option: top_p is 0/, /^Option: options: unknown variant `street`/, /^Option: the prompt of/];
  for (const [i, pattern] of expected.entries()) assert.match(messages[i], pattern);
});

test('the engine asks for subgroups where the adapter has them, and goes without when told to', async () => {
  const page = await newPage(browser, server);
  page.on('worker', (worker) => void worker.evaluate(() => {
    const { requestDevice } = GPUAdapter.prototype;
    GPUAdapter.prototype.requestDevice = async function (...args) {
      const device = await requestDevice.apply(this, args);
      globalThis.features = [...device.features];
      return device;
    };
  }));
  const load = (subgroups) => page.evaluate(async (subgroups) => {
    const { Globe } = await import('/dist/globe.js');
    globalThis.globe?.dispose();
    globalThis.globe = await Globe.load({ url: '/golden/untied/', device: 'gpu', subgroups });
    const photo = await (await fetch('/golden/images/small_40x30.png')).blob();
    const { greedy } = await globe.logits([photo], 'Where?', 8);
    return { ...globe.info, greedy };
  }, subgroups);
  const offered = await page.evaluate(async () => (await navigator.gpu.requestAdapter()).features.has('subgroups'));
  const [plain, granted] = [await load(false), await load(true)];
  assert.ok(offered, 'this browser offers them');
  assert.deepEqual([plain.subgroups, granted.subgroups], [false, true]);
  const { features } = await page.workers()[0].evaluate(() => ({ features: globalThis.features }));
  assert.ok(features.includes('subgroups') && features.includes('timestamp-query'), features.join(' '));
  assert.deepEqual(granted.greedy, plain.greedy);
  assert.deepEqual(page.faults, []);
  await page.context().close();
});
