// What is said before a download: whether the model fits, and why not. Adapters and quotas that no test machine has are mocked.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { GOLDEN, WEB, launch, newPage } from './browser.mjs';
import { serve } from './server.mjs';

let server, browser;
before(async () => {
  server = await serve({ '/dist/': join(WEB, 'dist'), '/golden/': GOLDEN });
  browser = await launch();
});
beforeEach(() => {
  server.faults = {};
  server.requests.length = 0;
});
after(async () => {
  await browser?.close();
  await server?.close();
});

/** A model of this many bytes that has nothing but its list. */
function serveList(path, size) {
  const manifest = { format: 'globe-files', version: 1, files: [{ name: 'model.safetensors', size, sha256: 'a'.repeat(64) }] };
  server.files[`${path}files.json`] = Buffer.from(JSON.stringify(manifest));
}

/** A packed model whose only matrix has one part of this many bytes. */
function servePacked(path, size, shape) {
  const manifest = {
    format: 'globe-packed', version: 1, shards: [{ name: 'model-1.bin', size, sha256: 'a'.repeat(64) }], files: [],
    tensors: [{ name: 'w', shape, parts: [{ words: { offset: 0, size } }] }],
  };
  server.files[`${path}manifest.json`] = Buffer.from(JSON.stringify(manifest));
}

/** Takes a feature or room from the adapter, in the page and in every worker. */
function withoutOf({ feature, limit, value }) {
  const { requestAdapter } = GPU.prototype;
  GPU.prototype.requestAdapter = async function (...args) {
    const adapter = await requestAdapter.apply(this, args);
    const features = new Set([...adapter.features].filter((name) => name !== feature));
    const limits = new Proxy(adapter.limits, { get: (limits, name) => (name === limit ? value : limits[name]) });
    return new Proxy(adapter, {
      get: (adapter, name) => {
        const own = { features, limits }[name] ?? adapter[name];
        return typeof own === 'function' ? own.bind(adapter) : own;
      },
    });
  };
}

/** Probes and loads in a page whose adapter lacks something. */
async function ask(url, { lack, device = 'auto', cache = true, quota, usage = 0 } = {}) {
  const script = `(${withoutOf})(${JSON.stringify(lack ?? {})})`;
  server.beforeWorker(script);
  const page = await newPage(browser, server);
  await page.evaluate(script);
  const got = await page.evaluate(async ({ url, device, cache, quota, usage }) => {
    if (quota !== undefined) StorageManager.prototype.estimate = async () => ({ quota, usage });
    const { Globe } = await import('/dist/globe.js');
    const probe = await Globe.probe(url, { device, cache });
    const loaded = await Globe.load({ url, device, cache, warm: false }).then(
      (globe) => (globe.dispose(), { device: globe.info.device }),
      ({ code, message }) => ({ code, message }),
    );
    return { probe, loaded };
  }, { url, device, cache, quota, usage });
  assert.deepEqual(page.faults, []);
  await page.context().close();
  return got;
}

const weightsAsked = () => server.requests.filter(({ path }) => /\.(safetensors|bin)$/.test(path));

test('an adapter is described, and no more than the manifest is asked for', async () => {
  serveList('/small/', 1000);
  const page = await newPage(browser, server);
  const probe = await page.evaluate(async () => (await import('/dist/globe.js')).Globe.probe('/small/'));
  assert.deepEqual([probe.fits, probe.device, probe.code], [true, 'gpu', null]);
  assert.equal(probe.model.bytes, 1000);
  assert.ok(probe.model.neededBytes > 1000);
  // `globe bench --shape 7b --batch 8 --tokens 512 --prompt 1500 --image 1008 --memory-mb 1` says what it needs.
  const [weights, planned] = [4774.3, 5820.5].map((mebibytes) => Math.round(mebibytes * 2 ** 20));
  serveList('/seven/', weights);
  const { model: seven } = await page.evaluate(async () => {
    StorageManager.prototype.estimate = async () => ({ quota: 1e12, usage: 0 });
    return (await import('/dist/globe.js')).Globe.probe('/seven/');
  });
  assert.ok(Math.abs(seven.neededBytes / planned - 1) < 0.02, `${seven.neededBytes} of ${planned} bytes`);
  assert.match(probe.reason, /can run it on its graphics processor\. It needs about \d+\s[kMG]B of graphics memory/);
  const { adapter, storage } = probe;
  assert.deepEqual(Object.keys(adapter).sort(), ['description', 'f16', 'maxBindingBytes', 'maxBufferBytes', 'storageBuffersPerStage', 'subgroups', 'timestamps']);
  assert.ok(adapter.timestamps && adapter.subgroups && adapter.maxBindingBytes >= 128 << 20 && storage.quota > 0);
  const paths = server.requests.map(({ path }) => path).filter((path) => path.startsWith('/small/'));
  assert.deepEqual(paths, ['/small/manifest.json', '/small/files.json']);
  await page.context().close();
});

const NO_TIMESTAMPS = { feature: 'timestamp-query' };

test('without timestamps a small model takes the CPU path, and a large one is refused before it is fetched', async () => {
  const small = await ask('/golden/untied/', { lack: NO_TIMESTAMPS });
  assert.deepEqual([small.probe.fits, small.probe.device, small.probe.code], [true, 'cpu', 'MissingFeature']);
  assert.match(small.probe.reason, /`timestamp-query`.*A small model runs on the processor instead, slowly\./);
  assert.deepEqual(small.loaded, { device: 'cpu' });

  const forced = await ask('/golden/untied/', { lack: NO_TIMESTAMPS, device: 'gpu' });
  assert.equal(forced.loaded.code, 'MissingFeature');

  server.requests.length = 0;
  serveList('/large/', 600 << 20);
  const large = await ask('/large/', { lack: NO_TIMESTAMPS });
  assert.deepEqual([large.probe.fits, large.probe.code], [false, 'MissingFeature']);
  assert.equal(large.loaded.code, 'MissingFeature');
  assert.match(large.loaded.message, /On the processor only models of up to 1024 MiB as f32 run, this one takes up to 1200 MiB$/);
  assert.deepEqual(weightsAsked(), []);
});

test('what four bits become on the CPU path counts, not what they take in the file', async () => {
  servePacked('/packed/', 200 << 20, [40_000, 9_000]);
  const { probe, loaded } = await ask('/packed/', { lack: NO_TIMESTAMPS });
  assert.deepEqual([probe.fits, probe.code, loaded.code], [false, 'MissingFeature', 'MissingFeature']);
  assert.match(loaded.message, /this one takes up to 1374 MiB$/);
  assert.deepEqual(weightsAsked(), []);
});

test('who asks for the processor is told whether the model fits there, and a folder without a manifest is weighed as well', async () => {
  const small = await ask('/golden/untied/', { device: 'cpu' });
  assert.deepEqual([small.probe.fits, small.probe.device, small.loaded.device], [true, 'cpu', 'cpu']);
  assert.match(small.probe.reason, /can run it on its processor, slowly\.$/);

  server.requests.length = 0;
  serveList('/large/', 600 << 20);
  const { probe, loaded } = await ask('/large/', { device: 'cpu' });
  assert.deepEqual([probe.fits, probe.code, loaded.code], [false, 'DoesNotFit', 'DoesNotFit']);
  assert.match(loaded.message, /^on the processor only models of up to 1024 MiB as f32 run, this one takes up to 1200 MiB$/);

  server.files['/plain/config.json'] = Buffer.from('{}');
  server.files['/plain/model.safetensors.index.json'] = Buffer.from(JSON.stringify({ metadata: { total_size: 700 << 20 }, weight_map: {} }));
  const plain = await ask('/plain/', { device: 'cpu' });
  assert.deepEqual([plain.probe.fits, plain.probe.code], [false, 'DoesNotFit']);
  assert.match(`${plain.loaded.code}: ${plain.loaded.message}`, /^DoesNotFit: .*this one takes up to 1400 MiB$/);
  assert.deepEqual(weightsAsked().filter(({ method }) => method !== 'HEAD'), []);
});

test('without WebGPU a large model is refused before it is fetched', async () => {
  serveList('/large/', 600 << 20);
  const plain = await launch({ webgpu: false });
  const page = await newPage(plain, server);
  const { probe, code } = await page.evaluate(async () => {
    const { Globe } = await import('/dist/globe.js');
    return { probe: await Globe.probe('/large/'), code: await Globe.load('/large/').catch(({ code }) => code) };
  });
  await plain.close();
  assert.deepEqual([probe.fits, probe.code, code], [false, 'NoWebGpu', 'NoWebGpu']);
  assert.deepEqual(weightsAsked(), []);
});

test('limits below those of WebGPU are named', async () => {
  const { probe, loaded } = await ask('/golden/untied/', { lack: { limit: 'maxStorageBuffersPerShaderStage', value: 4 }, device: 'gpu' });
  assert.equal(probe.code, 'MissingFeature');
  assert.match(loaded.message, /allows maxStorageBuffersPerShaderStage of 4, the engine needs 8/);
});

test('a part that the adapter cannot bind does not fit', async () => {
  servePacked('/wide/', 200 << 20);
  const { probe } = await ask('/wide/', { lack: { limit: 'maxStorageBufferBindingSize', value: 128 << 20 } });
  assert.deepEqual([probe.fits, probe.code], [false, 'DoesNotFit']);
  assert.match(probe.reason, /A part of the model takes 210\sMB; this graphics processor binds at most 134\sMB\./);
});

test('what the storage cannot keep is said, and refused only where memory could not hold it either', async () => {
  serveList('/small/', 2_000_000);
  const { probe: small } = await ask('/small/', { quota: 1_000_000 });
  assert.deepEqual([small.fits, small.code], [true, null]);
  assert.match(small.reason, /grants only 1\sMB of storage, so the model is downloaded at each visit/);
  const { probe: full } = await ask('/small/', { quota: 10_000_000, usage: 9_000_000 });
  assert.match(full.reason, /grants only 1\sMB of storage/, 'what others hold is not free');
  assert.equal(small.model.keeps, false);
  serveList('/large/', 2 ** 31);
  const { probe: large } = await ask('/large/', { quota: 1_000_000 });
  assert.deepEqual([large.fits, large.code], [false, 'Quota']);

  server.requests.length = 0;
  const { probe: unkept, loaded } = await ask('/large/', { cache: false });
  assert.deepEqual([unkept.fits, unkept.code, loaded.code], [false, 'Quota', 'Quota']);
  assert.match(loaded.message, /^the model has 2148 MB; what is not stored is held in memory, up to 1074 MB$/);
  assert.deepEqual(weightsAsked(), []);
});

test('a model that is not there, and a manifest of a newer version', async () => {
  const { probe } = await ask('/golden/untied/');
  const { bytes, keeps } = probe.model;
  assert.deepEqual([probe.fits, bytes > 0, keeps], [true, true, false], 'a folder without a manifest may still be a model, which is kept nowhere');
  const { probe: none, loaded: nothing } = await ask('/nowhere/');
  assert.deepEqual([none.fits, none.code, nothing.code], [false, 'Model', 'Model']);
  assert.match(none.reason, /^no model is at http:\/\/localhost:\d+\/nowhere\/: it has neither a manifest nor a config\.json; check the address$/);
  server.files['/newer/manifest.json'] = Buffer.from('{"format":"globe-packed","version":2}');
  const { probe: newer, loaded } = await ask('/newer/');
  assert.deepEqual([newer.fits, newer.code, loaded.code], [false, 'Model', 'Model']);
  assert.match(newer.reason, /version 2, this page reads version 1/);
});

test('a page without https is told what browsers ask of it', async () => {
  const plain = await launch({ flags: ['--host-resolver-rules=MAP globe.test 127.0.0.1'] });
  const page = await plain.newPage();
  server.files['/blank.html'] ??= Buffer.from('<!doctype html><title>test</title>');
  await page.goto(`${server.url.replace('localhost', 'globe.test')}blank.html`);
  const { probe, loaded } = await page.evaluate(async () => {
    const { Globe } = await import('/dist/globe.js');
    const loaded = await Globe.load('/golden/untied/').catch(({ code, message }) => `${code}: ${message}`);
    return { probe: await Globe.probe('/golden/untied/'), loaded };
  });
  await plain.close();
  assert.deepEqual([probe.fits, probe.code], [false, 'Insecure']);
  assert.match(loaded, /^Insecure: browsers let a page use the graphics processor and storage only over https; open globe\.test:\d+ with https, or as localhost$/);
});
