// A load that stands still is begun anew where it stopped; one that is slow, busy or waits for another tab is left alone.

import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { launch, newPage, newPageIn } from './browser.mjs';
import { PADDING, PIECE, serveSmallModel } from './small-model.mjs';

/** Instead of half a minute. Above what a busy test machine needs between two pieces. */
const STALL_MS = 1500;

let model, server, browser;
before(async () => {
  model = await serveSmallModel();
  server = model.server;
  browser = await launch();
});
beforeEach(() => {
  model.reset();
  model.pad(3 * PIECE);
});
after(async () => {
  await browser?.close();
  await model?.close();
});

const load = (page, options = {}) =>
  page.evaluate(async (options) => {
    const { Globe } = await import('/dist/globe.js');
    const begin = performance.now();
    try {
      const globe = await Globe.load({ url: '/model/', device: 'cpu', warm: false, ...options });
      globe.dispose();
      return { storage: globe.info.storage, verified: globe.info.verified, ms: performance.now() - begin };
    } catch ({ code, message }) {
      return { code, message, ms: performance.now() - begin };
    }
  }, { stallMs: STALL_MS, ...options });

const ranges = () => server.requests.filter(({ path }) => path === PADDING).map(({ range }) => range);
const workers = () => server.requests.filter(({ path }) => path === '/dist/worker.js').length;

/** Sends `bytes` of an answer, then nothing more on an open connection. */
function sendOnly(bytes, request, response, count) {
  const start = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
  const range = start > 0 ? { 'content-range': `bytes ${start}-${bytes.length - 1}/${bytes.length}` } : {};
  response.writeHead(start > 0 ? 206 : 200, { 'content-length': bytes.length - start, ...range });
  response.write(bytes.subarray(start, start + count));
  return null;
}

async function inPage(work) {
  const page = await newPage(browser, server);
  page.setDefaultTimeout(120_000);
  await work(page);
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

test('a server that stops in the midst of a file is asked again for the rest', () => inPage(async (page) => {
  let asked = 0;
  server.faults[PADDING] = (bytes, request, response) => (asked++ === 0 ? sendOnly(bytes, request, response, 2 * PIECE + 1000) : bytes);
  const { storage, verified, message } = await load(page);
  assert.deepEqual({ storage, verified }, { storage: 'opfs', verified: true }, message);
  assert.deepEqual(ranges(), [undefined, `bytes=${2 * PIECE}-`]);
  assert.equal(workers(), 2);
}));

/** What the browser was seen to do, or might: a promise between two pieces that nobody settles. */
const ENDLESS = {
  'a digest': () => {
    const { digest } = SubtleCrypto.prototype;
    let calls = 0;
    SubtleCrypto.prototype.digest = function (...args) {
      return ++calls === 4 ? new Promise(() => {}) : digest.apply(this, args);
    };
  },
  'a lock': () => {
    const { request } = LockManager.prototype;
    let calls = 0;
    LockManager.prototype.request = function (...args) {
      // Granted, and held for ever.
      return ++calls === 12 ? request.call(this, args[0], () => new Promise(() => {})) : request.apply(this, args);
    };
  },
  'a handle for writing': () => {
    const { createSyncAccessHandle } = FileSystemFileHandle.prototype;
    let calls = 0;
    FileSystemFileHandle.prototype.createSyncAccessHandle = function () {
      return ++calls === 5 ? new Promise(() => {}) : createSyncAccessHandle.call(this);
    };
  },
  'a body': () => {
    const { read } = ReadableStreamDefaultReader.prototype;
    let bytes = 0;
    ReadableStreamDefaultReader.prototype.read = async function () {
      const part = await read.call(this);
      return (bytes += part.value?.length ?? 0) > 10e6 ? new Promise(() => {}) : part;
    };
  },
  'what is read back from storage for the engine': () => {
    const { arrayBuffer } = Blob.prototype;
    let calls = 0;
    Blob.prototype.arrayBuffer = function () {
      return ++calls === 2 ? new Promise(() => {}) : arrayBuffer.call(this);
    };
  },
};

for (const [what, work] of Object.entries(ENDLESS)) {
  test(`${what} that never comes costs a worker, not the load`, () => inPage(async (page) => {
    model.inWorkers(work, 1);
    const { storage, verified, message } = await load(page);
    assert.deepEqual({ storage, verified }, { storage: 'opfs', verified: true }, message);
    assert.equal(workers(), 2);
  }));
}

test('an engine that stops in the midst costs a worker as well', () => inPage(async (page) => {
  let times = 0;
  server.faults['/dist/globe_web_bg.wasm'] = (bytes, request, response) => (times++ > 0 ? bytes : sendOnly(bytes, request, response, 100_000));
  const { storage, verified, message } = await load(page);
  assert.deepEqual({ storage, verified }, { storage: 'opfs', verified: true }, message);
  assert.equal(workers(), 2);
}));

test('where nothing helps, the load ends with a sentence, and what has arrived is kept', () => inPage(async (page) => {
  server.faults[PADDING] = (bytes, request, response) => sendOnly(bytes, request, response, request.headers.range ? 0 : PIECE + 1000);
  const { code, message, ms } = await load(page);
  assert.equal(code, 'Stalled', message);
  assert.match(message, /^the load stood still for 1.5 s, and again whenever it was begun anew; check the connection/);
  assert.ok(ms >= 3 * STALL_MS, `three times, not ${ms} ms`);
  assert.deepEqual(ranges(), [undefined, `bytes=${PIECE}-`, `bytes=${PIECE}-`]);
  server.faults = {};
  assert.equal((await load(page)).storage, 'opfs');
  assert.deepEqual(ranges().slice(3), [`bytes=${PIECE}-`], 'the next visit goes on from there');
}));

test('every beginning that gets further is worth another one', () => inPage(async (page) => {
  model.pad(4 * PIECE);
  server.faults[PADDING] = (bytes, request, response) => sendOnly(bytes, request, response, PIECE + 1000);
  const { storage, message } = await load(page);
  assert.equal(storage, 'opfs', message);
  assert.deepEqual(ranges(), [undefined, ...[1, 2, 3].map((piece) => `bytes=${piece * PIECE}-`)]);
}));

/** Sends all of it in parts that are far from filling a piece, over more than twice the time a load may stand still. */
function sendSlowly(bytes, request, response) {
  const parts = 12;
  const size = Math.ceil(bytes.length / parts);
  response.writeHead(200, { 'content-length': bytes.length });
  for (let i = 0; i < parts; i++) setTimeout(() => response.write(bytes.subarray(i * size, (i + 1) * size)), (i * STALL_MS) / 5);
  setTimeout(() => response.end(), (parts * STALL_MS) / 5);
  return null;
}

test('a slow connection is left alone', () => inPage(async (page) => {
  model.pad(5000);
  server.faults[PADDING] = sendSlowly;
  const { storage, message, ms } = await load(page);
  assert.equal(storage, 'opfs', message);
  assert.ok(ms > 2 * STALL_MS, `${ms} ms`);
  assert.deepEqual([ranges(), workers()], [[undefined], 1]);
}));

test('a worker that computes for long is left alone', () => inPage(async (page) => {
  model.inWorkers(() => {
    const { write } = FileSystemSyncAccessHandle.prototype;
    let busy = false;
    FileSystemSyncAccessHandle.prototype.write = function (bytes, options) {
      const end = performance.now() + (options.at > 0 && !busy ? 5000 : 0);
      busy ||= options.at > 0;
      while (performance.now() < end);
      return write.call(this, bytes, options);
    };
  }, 1);
  const { storage, message, ms } = await load(page);
  assert.equal(storage, 'opfs', message);
  assert.ok(ms > 5000, `${ms} ms`);
  assert.deepEqual([ranges(), workers()], [[undefined], 1]);
}));

test('a tab that waits for what another one fetches is left alone', async () => {
  // A piece a second and a half: what the other tab stores is looked at every second.
  server.faults[PADDING] = (bytes, request, response) => {
    response.writeHead(200, { 'content-length': bytes.length });
    for (const i of [0, 1, 2]) setTimeout(() => response.write(bytes.subarray(i * PIECE, (i + 1) * PIECE)), i * 0.75 * STALL_MS);
    setTimeout(() => response.end(), 1.5 * STALL_MS);
    return null;
  };
  const context = await browser.newContext();
  const [first, second] = [await newPageIn(context, server), await newPageIn(context, server)];
  const loads = await Promise.all([load(first), load(second, { stallMs: 1.5 * STALL_MS })]);
  assert.deepEqual(loads.map(({ storage, message }) => storage ?? message), ['opfs', 'opfs']);
  assert.deepEqual([ranges(), workers()], [[undefined], 2]);
  await context.close();
});

test('a time that is none is refused', () => inPage(async (page) => {
  const { code, message } = await load(page, { stallMs: 0 });
  assert.deepEqual([code, message], ['Option', 'stallMs is 0; it must be above 0']);
}));
