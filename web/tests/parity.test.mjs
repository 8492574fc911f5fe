// Sampled answers of every golden: equal seeds give the tokens of the native binary. Two drivers round their own way, so an
// answer may differ where two tokens are nearer than 1e-4 of the largest logit; here none does.

import assert from 'node:assert/strict';
import { readdirSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { GOLDEN, WEB, launch, newPage } from './browser.mjs';
import { native } from './native.mjs';
import { serve } from './server.mjs';

const PHOTO = 'images/photo.jpg';
const GOLDENS = readdirSync(GOLDEN).filter((name) => existsSync(join(GOLDEN, name, 'golden.json')));

let server, browser, page;
before(async () => {
  server = await serve({ '/dist/': join(WEB, 'dist'), '/golden/': GOLDEN });
  browser = await launch();
  page = await newPage(browser, server);
});
after(async () => {
  await browser?.close();
  await server?.close();
});

test('equal seeds give equal answers in the tab and natively', async (t) => {
  assert.equal(GOLDENS.length, 7);
  for (const name of GOLDENS) {
    await t.test(name, async () => {
      const said = native('locate', join(GOLDEN, PHOTO), '--model', join(GOLDEN, name), '--samples', '4', '--seed', '7', '--max-tokens', '16', '--format', 'json', '--quiet');
      const got = await page.evaluate(async ({ name, photo }) => {
        const { Globe } = await import('/dist/globe.js');
        const globe = await Globe.load({ url: `/golden/${name}/`, device: 'gpu', warm: false });
        const { answers } = await globe.locate(await (await fetch(`/golden/${photo}`)).blob(), { samples: 4, seed: 7, maxTokens: 16 });
        globe.dispose();
        return answers.map(({ text }) => text);
      }, { name, photo: PHOTO });
      const [{ answers }] = JSON.parse(await said);
      assert.deepEqual(got, answers.map(({ text }) => text));
      assert.deepEqual(page.faults, []);
      assert.ok(new Set(got).size > 1, 'the answers differ from each other');
    });
  }
});
