// Loading: resumed, verified, shared between tabs, deletable; faults of servers and disks as typed errors.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { launch, newPage } from './browser.mjs';
import { serve } from './server.mjs';
import { PADDING, PIECE, serveSmallModel } from './small-model.mjs';

let model, server, browser;
before(async () => {
  model = await serveSmallModel('deep');
  server = model.server;
  browser = await launch();
});
beforeEach(() => model.reset());
after(async () => {
  await browser?.close();
  await model?.close();
});

/** Loads in the page; answers with what loaded, or with the error. */
function load(page, options = {}) {
  return page.evaluate(async ({ abortAt, ...options }) => {
    const { Globe } = await import('/dist/globe.js');
    const stages = [];
    const stopper = new AbortController();
    try {
      const onProgress = ({ stage, done, total }) => {
        if (stages.at(-1)?.stage !== stage) stages.push({ stage });
        Object.assign(stages.at(-1), { done, total });
        if (stage === abortAt) stopper.abort();
      };
      const globe = await Globe.load({ url: '/model/', device: 'cpu', signal: stopper.signal, onProgress, ...options });
      const { info } = globe;
      globe.dispose();
      return { info, stages };
    } catch (error) {
      return { name: error.name, code: error.code, message: error.message, stages };
    }
  }, options);
}

const weights = '/model/model.safetensors';
const asked = (path) => server.requests.filter((request) => request.path === path);

async function inPage(work) {
  const page = await newPage(browser, server);
  await work(page);
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

test('a model is fetched, verified and kept; the second load asks for no weights', () => inPage(async (page) => {
  const first = await load(page);
  assert.ok(first.info, first.message);
  assert.equal(first.info.verified, true);
  assert.equal(first.info.storage, 'opfs');
  assert.deepEqual(first.stages.map(({ stage }) => stage), ['fetch', 'upload', 'compile']);
  const [fetched] = first.stages;
  assert.equal(fetched.done, fetched.total);
  server.requests.length = 0;
  assert.ok((await load(page)).info);
  assert.deepEqual(asked(weights), []);
}));

test('a load may end before kernels are compiled, and photos that come at once are answered alike', () => inPage(async (page) => {
  const { stages, texts } = await page.evaluate(async () => {
    const { Globe } = await import('/dist/globe.js');
    const photo = await (await fetch('/golden/images/plain_56x84.png')).blob();
    const stages = [];
    const texts = await Promise.all([false, true].map(async (warm) => {
      const onProgress = ({ stage }) => stages.push({ warm, stage });
      const globe = await Globe.load({ url: '/model/', device: 'cpu', warm, onProgress });
      const all = await Promise.all([1, 2].map((seed) => globe.locate(photo, { samples: 1, maxTokens: 4, seed })));
      globe.dispose();
      return all.map(({ answers }) => answers.map(({ text }) => text));
    }));
    return { stages, texts };
  });
  const compiled = stages.filter(({ stage }) => stage === 'compile');
  assert.ok(compiled.length > 0 && compiled.every(({ warm }) => warm), JSON.stringify(compiled));
  assert.ok(texts[0].flat().every((text) => text.length > 0), JSON.stringify(texts));
  assert.deepEqual(texts[0], texts[1]);
}));

test('a stored model loads without the network, and can be deleted', () => inPage(async (page) => {
  assert.ok((await load(page)).info);
  const cut = (bytes, request, response) => (response.destroy(), null);
  server.faults = { '/model/files.json': cut, '/model/manifest.json': cut };
  assert.ok((await load(page)).info, 'the kept manifest is used');
  const kept = await page.evaluate(async () => {
    const { Globe } = await import('/dist/globe.js');
    const before = await Globe.stored();
    await Globe.remove('/model/');
    return { before, after: await Globe.stored() };
  });
  assert.equal(kept.before.length, 1);
  assert.equal(kept.before[0].complete, true);
  assert.deepEqual(kept.after, []);
  assert.equal((await load(page)).code, 'Network', 'nothing is left of it');
}));

test('a cut connection is resumed by Range, and the bytes are whole', () => inPage(async (page) => {
  // Larger than a piece, so that something is kept when the connection is cut.
  model.pad(10_000_000);
  let cuts = 0;
  server.faults[PADDING] = (bytes, request, response) => {
    if (cuts++ > 0) return bytes;
    response.writeHead(200, { 'content-length': bytes.length });
    response.write(bytes.subarray(0, 6_000_000), () => response.destroy());
    return null;
  };
  const loaded = await load(page);
  assert.ok(loaded.info, loaded.message);
  assert.deepEqual(asked(PADDING).map(({ range }) => range), [undefined, `bytes=${PIECE}-`]);
}));

test('a server without Range sends all of it, and a load that was stopped goes on', () => inPage(async (page) => {
  const stopped = await load(page, { abortAt: 'fetch' });
  assert.equal(stopped.code, 'Aborted');
  server.faults[weights] = (bytes, request) => (delete request.headers.range, bytes);
  assert.ok((await load(page)).info);
}));

test('a load can be stopped at every stage', async (t) => {
  for (const abortAt of ['fetch', 'upload', 'compile']) {
    await t.test(abortAt, () => inPage(async (page) => {
      const { name, code } = await load(page, { abortAt });
      assert.deepEqual({ name, code }, { name: 'GlobeError', code: 'Aborted' });
    }));
  }
});

test('wrong bytes are refused after a second try, and do not count as present', () => inPage(async (page) => {
  server.faults[weights] = (bytes) => {
    const wrong = Buffer.from(bytes);
    wrong[wrong.length - 1] ^= 1;
    return wrong;
  };
  const refused = await load(page);
  assert.equal(refused.code, 'Integrity');
  assert.match(refused.message, /^model\.safetensors /);
  assert.equal(asked(weights).length, 2);
  server.faults = {};
  assert.ok((await load(page)).info, 'a healed server is enough');
}));

test('an entry damaged on disk is fetched again once', () => inPage(async (page) => {
  assert.ok((await load(page)).info);
  const digest = createHash('sha256').update(readFileSync(join(model.folder, 'model.safetensors'))).digest('hex');
  await page.evaluate(async (digest) => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('globe-models');
    const writer = await (await folder.getFileHandle(digest)).createWritable({ keepExistingData: true });
    await writer.write({ type: 'write', position: 1000, data: new Uint8Array([1, 2, 3]) });
    await writer.close();
  }, digest);
  server.requests.length = 0;
  assert.ok((await load(page)).info);
  assert.equal(asked(weights).length, 1);
}));

test('two tabs fetch a model once', async () => {
  const context = await browser.newContext();
  server.files['/blank.html'] ??= Buffer.from('<!doctype html><title>test</title>');
  const pages = await Promise.all([context.newPage(), context.newPage()]);
  await Promise.all(pages.map((page) => page.goto(`${server.url}blank.html`)));
  const loaded = await Promise.all(pages.map((page) => load(page)));
  for (const { info, message } of loaded) assert.ok(info, message);
  assert.equal(asked(weights).length, 1);
  await context.close();
});

test('faults of a server are sentences with a code', async (t) => {
  const text = (body) => () => Buffer.from(body);
  const gone = (bytes, request, response) => (response.writeHead(404).end(), null);
  const short = (bytes) => bytes.subarray(0, 1000);
  const cases = [
    ['no weights', { [weights]: gone }, 'Network', /model\.safetensors did not arrive: the server answered 404/],
    ['a truncated file', { [weights]: short }, 'Network', /ended after 1000 of \d+ bytes/],
    ['a newer manifest', { '/model/files.json': text('{"format":"globe-files","version":2}') }, 'Model', /version 2, this page reads version 1/],
    ['no manifest at all', { '/model/files.json': text('[]') }, 'Model', /format/],
    ['a file outside the folder', { '/model/files.json': text('{"format":"globe-files","version":1,"files":[{"name":"../x","size":1,"sha256":""}]}') }, 'Model', /plain name/],
    ['a damaged gazetteer', { '/dist/gazetteer.gaz': short }, 'Integrity', /^gazetteer/],
    ['no engine', { '/dist/globe_web_bg.wasm': gone }, 'Network', /^the engine did not arrive/],
  ];
  for (const [what, faults, code, message] of cases) {
    await t.test(what, () => inPage(async (page) => {
      server.faults = faults;
      const refused = await load(page);
      assert.equal(refused.code, code, refused.message);
      assert.match(refused.message, message);
    }));
  }
});

test('a server may refuse what it does not have, and compress what it sends', () => inPage(async (page) => {
  const refuse = (bytes, request, response) => (response.writeHead(403).end(), null);
  const compress = (bytes, request, response) => {
    const headers = { 'content-type': 'application/json', 'content-encoding': 'gzip' };
    response.writeHead(200, headers).end(request.method === 'HEAD' ? undefined : gzipSync(bytes));
    return null;
  };
  server.faults = { '/model/manifest.json': refuse };
  assert.equal((await load(page)).info?.verified, true);
  server.faults = { '/golden/untied/manifest.json': refuse, '/golden/untied/files.json': refuse, '/golden/untied/tokenizer.json': compress, '/golden/untied/config.json': compress };
  const { info, message } = await load(page, { url: '/golden/untied/' });
  assert.equal(info?.verified, false, message);
}));

test('a server that does not allow the page is named as such', async () => {
  const other = await serve({ '/model/': model.folder });
  await inPage(async (page) => {
    const refused = await load(page, { url: `${other.url.replace('localhost', '127.0.0.1')}model/` });
    assert.equal(refused.code, 'Network');
    assert.match(refused.message, /CORS/);
  });
  await other.close();
});

test('of a chosen folder with models within it the one at its top is read', () => inPage(async (page) => {
  const verified = await page.evaluate(async () => {
    const { Globe } = await import('/dist/globe.js');
    const names = (await (await fetch('/model/files.json')).json()).files.map(({ name }) => name);
    const at = (file, path) => Object.defineProperty(file, 'webkitRelativePath', { value: path });
    const file = async (name) => at(new File([await (await fetch(`/model/${name}`)).arrayBuffer()], name), `models/${name}`);
    const files = await Promise.all(['files.json', ...names].map(file));
    const inner = ['manifest.json', 'files.json', ...names].map((name) => at(new File(['{}'], name), `models/q4/${name}`));
    const { info, ...globe } = await Globe.load({ files: [...inner, ...files, ...inner], device: 'cpu', warm: false });
    void globe;
    return info.verified;
  });
  assert.equal(verified, true);
}));

test('a chosen folder is verified, and a damaged one refused', () => inPage(async (page) => {
  const result = await page.evaluate(async () => {
    const { Globe } = await import('/dist/globe.js');
    const names = (await (await fetch('/model/files.json')).json()).files.map(({ name }) => name);
    const file = async (name) => new File([await (await fetch(`/model/${name}`)).arrayBuffer()], name);
    const files = await Promise.all(['files.json', ...names].map(file));
    const globe = await Globe.load({ files, device: 'cpu' });
    const { info } = globe;
    globe.dispose();
    // The engine would prefer this template; what the manifest does not list is not read.
    const unlisted = new File(['{{ no template'], 'chat_template.jinja');
    if (names.includes(unlisted.name)) throw new Error('choose a golden without a template of its own');
    (await Globe.load({ files: [...files, unlisted], device: 'cpu' })).dispose();
    const damaged = files.map((file) => (file.name === 'model.safetensors' ? new File([file.slice(0, -1), 'x'], file.name) : file));
    const missing = files.filter(({ name }) => name !== 'config.json');
    const codes = [];
    for (const wrong of [damaged, missing]) codes.push(await Globe.load({ files: wrong, device: 'cpu' }).catch(({ code }) => code));
    return { info, codes };
  });
  assert.equal(result.info.verified, true);
  assert.deepEqual(result.codes, ['Integrity', 'Model']);
}));
