// The engine in the tab: the tokens of the goldens, stops at every stage, memory given back.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { WEB, GOLDEN, launch, newPage } from './browser.mjs';
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
  for (const name of ['untied', 'window112', 'two_images']) await t.test(name, () => compare(name, 'gpu'));
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
