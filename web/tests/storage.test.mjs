// Where a model is kept when a browser refuses the best place, what becomes of half a download, and of damage on disk.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { launch, newPage, newPageIn } from './browser.mjs';
import { PADDING, PIECE, serveSmallModel } from './small-model.mjs';

const WEIGHTS = '/model/model.safetensors';

let model, server, browser;
before(async () => {
  model = await serveSmallModel();
  server = model.server;
  browser = await launch();
});
beforeEach(() => model.reset());
after(async () => {
  await browser?.close();
  await model?.close();
});

const load = (page, options = {}) =>
  page.evaluate(async (options) => {
    const { Globe } = await import('/dist/globe.js');
    try {
      const globe = await Globe.load({ url: '/model/', device: 'cpu', warm: false, ...options });
      globe.dispose();
      return globe.info;
    } catch ({ code, message }) {
      return { code, message };
    }
  }, options);

/** Calls of the package's class, by name. */
const ask = (page, name, ...args) =>
  page.evaluate(async ({ name, args }) => {
    const { Globe } = await import('/dist/globe.js');
    return Globe[name](...args);
  }, { name, args });

const asked = (path) => server.requests.filter((request) => request.path === path);

async function inPage(work) {
  const page = await newPage(browser, server);
  await work(page);
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

test('without OPFS the Cache API keeps a model, and damage there is found as well', () => inPage(async (page) => {
  model.inWorkers(() => {
    StorageManager.prototype.getDirectory = () => Promise.reject(new DOMException('refused', 'SecurityError'));
  });
  assert.equal((await load(page)).storage, 'cache');
  server.requests.length = 0;
  assert.equal((await load(page)).storage, 'cache');
  assert.deepEqual(asked(WEIGHTS), [], 'the second load asks for no weights');
  const [stored] = await ask(page, 'stored');
  assert.equal(stored.complete, true);

  const digest = createHash('sha256').update(readFileSync(join(model.folder, 'model.safetensors'))).digest('hex');
  await page.evaluate(async (digest) => {
    const cache = await caches.open('globe-models');
    const url = `${location.origin}/globe-models/${digest}/0`;
    const bytes = new Uint8Array(await (await cache.match(url)).arrayBuffer());
    bytes[1000] ^= 1;
    await cache.put(url, new Response(bytes));
  }, digest);
  assert.equal((await load(page)).storage, 'cache');
  assert.equal(asked(WEIGHTS).length, 1, 'fetched again once');
  await ask(page, 'remove', '/model/');
  assert.deepEqual(await ask(page, 'stored'), []);
  assert.equal(await page.evaluate(async () => (await (await caches.open('globe-models')).keys()).length), 0);
}));

test('without any storage a model is held in memory', () => inPage(async (page) => {
  model.inWorkers(() => {
    StorageManager.prototype.getDirectory = () => Promise.reject(new DOMException('refused', 'SecurityError'));
    CacheStorage.prototype.open = () => Promise.reject(new DOMException('refused', 'SecurityError'));
  });
  const { storage, verified } = await load(page);
  assert.deepEqual({ storage, verified }, { storage: 'memory', verified: true });
}));

/** The browser's own quota, as on a full disk. */
async function grant(page, quotaSize) {
  const session = await page.context().newCDPSession(page);
  await session.send('Storage.overrideQuotaForOrigin', { origin: new URL(server.url).origin, quotaSize });
}

test('a small model that the quota refuses is held in memory, a large one is refused before it is fetched', () => inPage(async (page) => {
  await grant(page, 20_000);
  assert.equal((await load(page)).storage, 'memory');
  assert.ok(!(await ask(page, 'stored')).some(({ complete }) => complete), 'nothing counts as present');

  const manifest = { format: 'globe-files', version: 1, files: [{ name: 'model.safetensors', size: 2 ** 31, sha256: 'a'.repeat(64) }] };
  server.files['/large/files.json'] = Buffer.from(JSON.stringify(manifest));
  const refused = await load(page, { url: '/large/', device: 'gpu' });
  assert.equal(refused.code, 'Quota');
  // A browser that does not tell its quota refuses only when something is written.
  assert.match(refused.message, /^the (model needs 2148 MB more, the browser grants \d+ MB|browser has no room to store the model)/);
  assert.deepEqual(server.requests.filter(({ path }) => path === '/large/model.safetensors'), []);
}));

test('a disk that is full half way is found out as well', () => inPage(async (page) => {
  model.pad(3 * PIECE);
  model.inWorkers(() => {
    const { write } = FileSystemSyncAccessHandle.prototype;
    FileSystemSyncAccessHandle.prototype.write = function (bytes, options) {
      if (options?.at > 0) throw new DOMException('no space', 'QuotaExceededError');
      return write.call(this, bytes, options);
    };
  });
  assert.equal((await load(page)).storage, 'memory');
  assert.ok(!(await ask(page, 'stored')).some(({ complete }) => complete));
}));

test('a download goes on where a closed tab left it', async () => {
  model.pad(3 * PIECE);
  // Two pieces arrive, then nothing: the tab is closed while it waits.
  server.faults[PADDING] = (bytes, request, response) => {
    if (request.headers.range) return bytes;
    response.writeHead(200, { 'content-length': bytes.length });
    response.write(bytes.subarray(0, 2 * PIECE + 1000));
    return null;
  };
  const context = await browser.newContext();
  const first = await newPageIn(context, server);
  void load(first).catch(() => undefined);
  const second = await newPageIn(context, server);
  const stored = async () => (await ask(second, 'stored')).map(({ bytes, complete }) => ({ bytes, complete }));
  for (let i = 0; i < 100 && (await stored())[0]?.bytes !== 2 * PIECE; i++) await new Promise((done) => setTimeout(done, 100));
  await first.close();
  assert.deepEqual(await stored(), [{ bytes: 2 * PIECE, complete: false }]);
  const { storage, message } = await load(second);
  assert.equal(storage, 'opfs', message);
  assert.deepEqual(asked(PADDING).map(({ range }) => range), [undefined, `bytes=${2 * PIECE}-`]);
  await context.close();
});

test('a model that another tab is downloading is not deleted, and says so', async () => {
  model.pad(3 * PIECE);
  let go;
  const wait = new Promise((done) => (go = done));
  server.faults[PADDING] = (bytes, request, response) => {
    response.writeHead(200, { 'content-length': bytes.length });
    response.write(bytes.subarray(0, PIECE + 1000));
    void wait.then(() => response.end(bytes.subarray(PIECE + 1000)));
    return null;
  };
  const context = await browser.newContext();
  const first = await newPageIn(context, server);
  const loading = load(first, { stallMs: 60_000 });
  const second = await newPageIn(context, server);
  for (let i = 0; i < 100 && !(await ask(second, 'stored'))[0]?.bytes; i++) await new Promise((done) => setTimeout(done, 100));
  const refused = await second.evaluate(async () => {
    const { Globe } = await import('/dist/globe.js');
    return Globe.remove('/model/').then(() => 'deleted', ({ code, message }) => `${code}: ${message}`);
  });
  assert.match(refused, /^Model: this model is being downloaded, here or in another tab; stop that first/);
  go();
  assert.equal((await loading).storage, 'opfs');
  assert.deepEqual((await ask(second, 'stored')).map(({ complete }) => complete), [true]);
  await ask(second, 'remove', '/model/');
  assert.deepEqual(await ask(second, 'stored'), []);
  await context.close();
});

test('a server without Range sends all of it again, and what is here is skipped', () => inPage(async (page) => {
  model.pad(3 * PIECE);
  let cuts = 0;
  server.faults[PADDING] = (bytes, request, response) => {
    delete request.headers.range;
    if (cuts++ > 0) return bytes;
    response.writeHead(200, { 'content-length': bytes.length });
    response.write(bytes.subarray(0, 2 * PIECE + 1000), () => response.destroy());
    return null;
  };
  const { storage, verified } = await load(page);
  assert.deepEqual({ storage, verified, cuts }, { storage: 'opfs', verified: true, cuts: 2 });
}));

test('what is stored can be verified: damage is named, deleted and fetched again', () => inPage(async (page) => {
  assert.equal((await load(page)).storage, 'opfs');
  const total = JSON.parse(readFileSync(join(model.folder, 'files.json'), 'utf8')).files.reduce((sum, { size }) => sum + size, 0);
  assert.deepEqual(await ask(page, 'verify', '/model/'), { bytes: total, damaged: [], missing: [] });
  const digest = createHash('sha256').update(readFileSync(join(model.folder, 'model.safetensors'))).digest('hex');
  await page.evaluate(async (digest) => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('globe-models');
    const writer = await (await folder.getFileHandle(digest)).createWritable({ keepExistingData: true });
    await writer.write({ type: 'write', position: 1000, data: new Uint8Array([1, 2, 3]) });
    await writer.close();
  }, digest);
  const { damaged, missing } = await ask(page, 'verify', '/model/');
  assert.deepEqual({ damaged, missing }, { damaged: ['model.safetensors'], missing: [] });
  assert.deepEqual((await ask(page, 'verify', '/model/')).missing, ['model.safetensors'], 'it counts as absent from then on');
  server.requests.length = 0;
  assert.equal((await load(page)).storage, 'opfs');
  assert.equal(asked(WEIGHTS).length, 1);
  const unknown = await page.evaluate(async () => {
    const { Globe } = await import('/dist/globe.js');
    return Globe.verify('/elsewhere/').catch(({ code }) => code);
  });
  assert.equal(unknown, 'Model');
}));

test('a disk that damages a file again is an error', () => inPage(async (page) => {
  assert.equal((await load(page)).storage, 'opfs');
  model.inWorkers(() => {
    const { arrayBuffer } = Blob.prototype;
    Blob.prototype.arrayBuffer = async function () {
      const bytes = await arrayBuffer.call(this);
      if (bytes.byteLength > 0) new Uint8Array(bytes)[0] ^= 1;
      return bytes;
    };
  });
  const { code, message } = await load(page);
  assert.equal(code, 'Integrity');
  assert.match(message, /was damaged in storage, twice/);
}));

test('offline at the first visit is said as such', () => inPage(async (page) => {
  await page.evaluate(() => import('/dist/globe.js'));
  server.faults['/model/files.json'] = server.faults['/model/manifest.json'] = (bytes, request, response) => (response.destroy(), null);
  model.inWorkers(() => Object.defineProperty(WorkerNavigator.prototype, 'onLine', { get: () => false }));
  const { code, message } = await load(page);
  assert.equal(code, 'Network');
  assert.match(message, /this device is offline, and the model is not stored/);
}));

/** Digests of the files that are stored, as their names. */
const storedFiles = (page) => page.evaluate(async () => {
  const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('globe-models');
  const names = [];
  for await (const name of folder.keys()) if (/^[0-9a-f]{64}/.test(name)) names.push(name.slice(0, 64));
  return names.sort();
});

test('a model that changed at its address stays until the new one is whole, and leaves nothing behind then', () => inPage(async (page) => {
  model.pad(PIECE + 5, 1);
  assert.equal((await load(page)).storage, 'opfs');
  const [old] = await ask(page, 'stored');
  const oldFiles = await storedFiles(page);

  model.pad(PIECE + 7, 2);
  const probed = await ask(page, 'probe', '/model/');
  assert.notEqual(probed.model.digest, old.digest, 'what is stored is another model');
  server.faults[PADDING] = (bytes, request, response) => (response.writeHead(404).end(), null);
  assert.equal((await load(page)).code, 'Network');
  assert.deepEqual(await ask(page, 'stored'), [old], 'the old one is whole');

  server.faults['/model/files.json'] = (bytes, request, response) => (response.destroy(), null);
  server.requests.length = 0;
  assert.equal((await load(page)).verified, true, 'and loads without the server');
  assert.deepEqual(asked(PADDING), []);

  server.faults = {};
  assert.equal((await load(page)).storage, 'opfs');
  const [now, ...others] = await ask(page, 'stored');
  assert.deepEqual({ complete: now.complete, digest: now.digest, others }, { complete: true, digest: probed.model.digest, others: [] });
  const files = await storedFiles(page);
  assert.equal(files.length, oldFiles.length);
  assert.equal(files.filter((name) => !oldFiles.includes(name)).length, 1, 'the file that changed took the place of the old one');
  await ask(page, 'remove', '/model/');
  assert.deepEqual(await storedFiles(page), []);
}));

test('a new model has the room of the old one where there is none for both', () => inPage(async (page) => {
  model.pad(8 * PIECE, 1);
  assert.equal((await load(page)).storage, 'opfs');
  const used = await page.evaluate(async () => (await navigator.storage.estimate()).usage);
  model.pad(8 * PIECE, 2);
  await grant(page, used + 2 * PIECE);
  assert.equal((await load(page)).storage, 'opfs');
  const [{ complete }, ...others] = await ask(page, 'stored');
  assert.deepEqual({ complete, others }, { complete: true, others: [] });
}));

test('a stored model that only a newer page can read hides no other, and can be deleted', () => inPage(async (page) => {
  assert.equal((await load(page)).storage, 'opfs');
  await page.evaluate(async () => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('globe-models');
    for await (const [name, handle] of folder) {
      if (!name.startsWith('model-')) continue;
      const kept = JSON.parse(await (await handle.getFile()).text());
      kept.manifest.text = kept.manifest.text.replace('"version": 1', '"version": 2');
      const writer = await handle.createWritable();
      await writer.write(JSON.stringify(kept));
      await writer.close();
    }
  });
  const [{ url, bytes, complete }] = await ask(page, 'stored');
  assert.deepEqual({ complete, some: bytes > 0 }, { complete: false, some: true });
  await ask(page, 'remove', url);
  assert.deepEqual(await ask(page, 'stored'), []);
  assert.deepEqual(await storedFiles(page), []);
}));
