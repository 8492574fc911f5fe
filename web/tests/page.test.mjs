// The demo page as a visitor meets it: locating, keyboard, accessibility, offline, sealed; pictures kept as artefacts.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { listFiles } from '../scripts/list-files.mjs';
import { ARTEFACTS, GOLDEN, WEB, launch, newPage } from './browser.mjs';
import { EXAMPLE } from './example-result.mjs';
import { serve } from './server.mjs';

const PHOTO = join(GOLDEN, 'images/photo.jpg');
const AXE = readFileSync(join(WEB, 'node_modules/axe-core/axe.min.js'), 'utf8');

let server, browser;
before(async () => {
  mkdirSync(ARTEFACTS, { recursive: true });
  const model = mkdtempSync(join(tmpdir(), 'globe-model-'));
  await listFiles(join(GOLDEN, 'window112'), model);
  server = await serve({ '/': join(WEB, 'site'), '/models/demo/': model });
  server.files['/models/demo/about.json'] = Buffer.from('{"random":true}');
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.close();
});

async function loadModel(page) {
  await page.getByRole('button', { name: /Download and load|Load the stored model/ }).click();
  await page.getByText(/Model ready/).waitFor({ timeout: 120_000 });
}

async function setLocator(page, values) {
  await page.locator('globe-locator').evaluate((element, values) => Object.assign(element, values), values);
}

async function choosePhoto(page, file = PHOTO) {
  await page.locator('#file').setInputFiles(file);
}

test('a visitor loads the model, locates a photo and copies the result', async () => {
  const page = await newPage(browser, server, '', { permissions: ['clipboard-read', 'clipboard-write'] });
  await loadModel(page);
  await setLocator(page, { samples: 2, maxTokens: 12, temperature: 0 });
  await choosePhoto(page);
  const done = page.locator('globe-locator').evaluate((element) => new Promise((resolve) => {
    let tokens = '';
    element.addEventListener('token', ({ detail }) => (tokens += detail.text));
    element.addEventListener('result', ({ detail }) => resolve({ tokens, result: detail }));
  }));
  await page.getByRole('button', { name: 'Locate', exact: true }).click();
  const { tokens, result } = await done;
  assert.equal(result.samples, 2);
  assert.equal(result.answers[0].text, result.answers[1].text, 'greedy answers are equal');
  assert.ok(tokens.startsWith(result.answers[0].text), 'the tokens that were streamed are the answer');
  await page.getByRole('button', { name: 'Copy as GeoJSON' }).click();
  await page.getByText('GeoJSON copied.').waitFor();
  const copied = JSON.parse(await page.evaluate(() => navigator.clipboard.readText()));
  assert.equal(copied.type, 'FeatureCollection');
  assert.equal(copied.features.length, result.candidates.length);
  assert.deepEqual(page.faults, []);
  await page.context().close();
});

/** Shows the example result, whose photo carries a position. */
async function showExample(page) {
  await choosePhoto(page);
  await page.locator('globe-locator').evaluate((element, result) => {
    element.result = result;
  }, EXAMPLE);
  await page.locator('globe-map svg path.land').waitFor({ state: 'attached' });
}

async function assertAccessible(page, what) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
  assert.deepEqual(serious.map(({ id, nodes }) => `${what}: ${id}: ${nodes[0].html}`), []);
}

test('axe-core finds nothing serious, and the page fits, in every look', async (t) => {
  const looks = {
    light: { colorScheme: 'light', viewport: { width: 1280, height: 900 } },
    dark: { colorScheme: 'dark', viewport: { width: 1280, height: 900 } },
    narrow: { colorScheme: 'light', viewport: { width: 320, height: 720 }, reducedMotion: 'reduce' },
    // A browser at 200 % gives a page half of its pixels, drawn twice as large.
    zoomed: { colorScheme: 'dark', viewport: { width: 640, height: 450 }, deviceScaleFactor: 2 },
    rtl: { colorScheme: 'light', viewport: { width: 1000, height: 800 } },
  };
  for (const [look, options] of Object.entries(looks)) {
    await t.test(look, async () => {
      const page = await newPage(browser, server, '', options);
      if (look === 'rtl') await page.evaluate(() => Object.assign(document.documentElement, { dir: 'rtl', lang: 'ar' }));
      await page.getByRole('button', { name: /Download and load/ }).waitFor();
      await page.screenshot({ path: join(ARTEFACTS, `${look}-start.png`), fullPage: true });
      await assertAccessible(page, `${look}, at the start`);
      await showExample(page);
      await page.screenshot({ path: join(ARTEFACTS, `${look}-result.png`), fullPage: true });
      await assertAccessible(page, `${look}, with a result`);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.equal(overflow, 0, 'nothing reaches beyond the side');
      assert.deepEqual(page.faults, []);
      await page.context().close();
    });
  }
});
