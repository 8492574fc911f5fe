// A folder that `globe convert` wrote: fetched, verified, and answered with the tokens of the native binary.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { GOLDEN, WEB, launch, newPage } from './browser.mjs';
import { golden } from './golden.mjs';
import { native } from './native.mjs';
import { serve } from './server.mjs';

/** Of the largest logit: two compilers round their own way, and so do 8-bit kernels of different shape. */
const LOGIT_TOL = 1e-4;
const PHOTO = 'images/photo.jpg';

let server, browser, page, model;
before(async () => {
  model = mkdtempSync(join(tmpdir(), 'globe-packed-'));
  await native('convert', '--from', join(GOLDEN, 'tied'), '--out', model, '--bits', '8', '--quiet');
  server = await serve({ '/dist/': join(WEB, 'dist'), '/packed/': model, '/golden/': GOLDEN });
  browser = await launch();
  page = await newPage(browser, server);
  await page.evaluate(async () => {
    const { Globe } = await import('/dist/globe.js');
    globalThis.globe = await Globe.load({ url: '/packed/', device: 'gpu' });
    globalThis.image = async (name) => (await fetch(`/golden/${name}`)).blob();
  });
});
after(async () => {
  await browser?.close();
  await server?.close();
  rmSync(model, { recursive: true, force: true });
});

const locate = (options) =>
  page.evaluate(async ({ photo, options }) => {
    const ids = [];
    const onEvent = (event) => event.kind === 'tokens' && (ids[event.sample] ??= []).push(...event.ids);
    const result = await globe.locate(await image(photo), { ...options, onEvent });
    return { result, ids };
  }, { photo: PHOTO, options });

const texts = ({ answers }) => answers.map(({ text }) => text);

test('it is verified and kept, and nothing but the packed files was asked for', async () => {
  const info = await page.evaluate(() => globe.info);
  assert.deepEqual([info.device, info.verified, info.storage], ['gpu', true, 'opfs']);
  const asked = server.requests.map(({ path }) => path).filter((path) => path.startsWith('/packed/'));
  assert.ok(asked.includes('/packed/model-00001.bin'), asked.join(' '));
  assert.ok(!asked.some((path) => path.endsWith('.safetensors')), asked.join(' '));
});

test('logits and greedy tokens are those of the native binary', async () => {
  const { facts } = await golden('tied');
  const images = facts.images.flatMap((name) => ['--image', join(GOLDEN, name)]);
  const system = facts.system == null ? [] : ['--system', facts.system];
  const said = await native('logits', '--model', model, ...images, '--prompt', facts.prompt, ...system, '--tokens', '32', '--json');
  const expected = JSON.parse(said);
  const got = await page.evaluate(async ({ facts }) => {
    const images = await Promise.all(facts.images.map(image));
    return globe.logits(images, facts.prompt, 32, facts.system);
  }, { facts });
  assert.deepEqual(got.input_ids, expected.input_ids);
  const scale = Math.max(...expected.last_logits.map(Math.abs));
  const worst = Math.max(...got.last_logits.map((x, i) => Math.abs(x - expected.last_logits[i]))) / scale;
  assert.ok(worst <= LOGIT_TOL, `largest error ${worst} of the largest logit`);
  assert.equal(expected.greedy.length, 32);
  assert.deepEqual(got.greedy, expected.greedy);
});

test('answers drawn at once are those drawn one by one, and those of the native binary', async (t) => {
  const sampled = { samples: 5, maxTokens: 12, seed: 7 };
  const [alone, together] = [await locate(sampled), await locate({ ...sampled, batch: 3 })];
  assert.equal(together.result.timings.at_once, 3);
  assert.ok(new Set(texts(alone.result)).size > 2, 'the answers differ');
  assert.deepEqual(texts(together.result), texts(alone.result));
  assert.deepEqual(together.ids, alone.ids, 'every token arrived under the number of its answer');
  for (const [what, options, words] of [
    ['sampled', sampled, ['--samples', '5', '--seed', '7']],
    ['greedy', { samples: 2, maxTokens: 12, batch: 2, sampling: { temperature: 0 } }, ['--samples', '2', '--temperature', '0']],
  ]) {
    await t.test(what, async () => {
      const said = await native('locate', join(GOLDEN, PHOTO), '--model', model, '--max-tokens', '12', ...words, '--format', 'json', '--quiet');
      const [expected] = JSON.parse(said);
      assert.deepEqual(texts((await locate(options)).result), texts(expected));
    });
  }
});

test('no answers at once are refused by name', async () => {
  const refused = await page.evaluate(async (photo) => {
    const blob = await image(photo);
    return globe.locate(blob, { samples: 1, batch: 0 }).catch(({ code, message }) => `${code}: ${message}`);
  }, PHOTO);
  assert.match(refused, /^Option: batch is 0, expected at least 1/);
  assert.deepEqual(page.faults, []);
});

test('a visitor chooses such a folder of theirs, which lies on no server', async () => {
  const visited = await newPage(browser, server);
  visited.setDefaultTimeout(60_000);
  await visited.evaluate(async () => {
    await import('/dist/element.js');
    document.body.append(Object.assign(document.createElement('globe-locator'), { samples: 1, maxTokens: 6 }));
  });
  await visited.locator('#folder').setInputFiles(model);
  await visited.getByText(/Model ready/).waitFor();
  await visited.locator('#file').setInputFiles(join(GOLDEN, PHOTO));
  await visited.getByRole('button', { name: 'Locate', exact: true }).click();
  await visited.locator('.headline').waitFor();
  const { verified, storage } = await visited.locator('globe-locator').evaluate(({ globe }) => globe.info);
  assert.deepEqual({ verified, storage, faults: visited.faults }, { verified: true, storage: 'none', faults: [] });
  await visited.context().close();
});
