// The demo page as a visitor meets it: locating, keyboard, accessibility, offline, sealed; pictures kept as artefacts.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { crc32 } from 'node:zlib';
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

  await setLocator(page, { result: EXAMPLE });
  await page.getByRole('button', { name: 'Copy as GeoJSON' }).click();
  await page.waitForFunction(async () => (await navigator.clipboard.readText()).includes('Lisbon'));
  const { features } = JSON.parse(await page.evaluate(() => navigator.clipboard.readText()));
  assert.deepEqual(features.map(({ geometry }) => geometry.coordinates), [[-9.1333, 38.7167], [-8.611, 41.1496], [-38.5108, -12.9711]], 'longitude first');
  assert.deepEqual(features.map(({ type, geometry, properties }) => [type, geometry.type, properties.city, properties.rank, properties.image]),
    [['Feature', 'Point', 'Lisbon', 1, 'photo.jpg'], ['Feature', 'Point', 'Porto', 2, 'photo.jpg'], ['Feature', 'Point', 'Salvador', 3, 'photo.jpg']]);
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

test('the keyboard alone chooses places, and Escape shows the world', async () => {
  const page = await newPage(browser, server, '');
  await showExample(page);
  const chosen = () => page.locator('tr.chosen .rank').allTextContents();
  const land = () => page.locator('globe-map path.land').getAttribute('d');
  /** Waits until the map shows another view: it is drawn in slices, after the key was pressed. */
  const moved = (from) => page.waitForFunction((from) => {
    const map = document.querySelector('globe-locator').renderRoot.querySelector('globe-map');
    return map.renderRoot.querySelector('path.land').getAttribute('d') !== from;
  }, from);
  assert.deepEqual(await chosen(), ['1']);
  // Tab goes from the page's start through every control to the one row that is chosen.
  for (let i = 0; i < 30 && !(await page.evaluate(() => document.querySelector('globe-locator').renderRoot.activeElement?.dataset.rank)); i++) {
    await page.keyboard.press('Tab');
  }
  const near = await land();
  await page.keyboard.press('ArrowDown');
  assert.deepEqual(await chosen(), ['2']);
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('ArrowDown');
  assert.deepEqual(await chosen(), ['3'], 'the last place is the last');
  await moved(near);
  await page.keyboard.press('Escape');
  assert.deepEqual(await chosen(), []);
  await page.context().close();
});

test('the dial rounds what is shown and what is copied', async () => {
  const page = await newPage(browser, server, '', { permissions: ['clipboard-read', 'clipboard-write'] });
  await loadModel(page);
  await setLocator(page, { samples: 1, maxTokens: 4, temperature: 0 });
  await choosePhoto(page);
  await page.getByRole('button', { name: 'Locate', exact: true }).click();
  await page.locator('.headline').waitFor({ timeout: 60_000 });
  await page.getByRole('radio', { name: 'country' }).check();
  await page.getByText("The model's text may name a city").waitFor();
  await page.waitForFunction(() => document.querySelector('globe-locator').result.answers[0].text === null);
  await page.getByRole('button', { name: 'Copy as JSON' }).click();
  await page.getByText('JSON copied.').waitFor();
  const copied = JSON.parse(await page.evaluate(() => navigator.clipboard.readText()));
  assert.equal(copied.answers[0].text, null);
  assert.equal(copied.answers[0].reasoning, null);

  // Turned while the model answers.
  await page.getByRole('radio', { name: 'city' }).check();
  const text = await page.locator('globe-locator').evaluate(async (element) => {
    element.addEventListener('token', () => (element.precision = 'region'), { once: true });
    return (await element.locate()).answers[0].text;
  });
  assert.equal(text, null);
  // Turned twice before the first answer.
  await page.locator('globe-locator').evaluate(async (element) => {
    for (const precision of ['city', 'country']) {
      element.precision = precision;
      await element.updateComplete;
    }
  });
  await page.waitForTimeout(300);
  assert.equal(await page.evaluate(() => document.querySelector('globe-locator').result.answers[0].text), null);
  // What another model made cannot be rounded by this one.
  await setLocator(page, { result: EXAMPLE });
  await page.getByRole('radio', { name: 'city' }).isDisabled().then(assert.ok);
  await page.context().close();
});

// A browser asks whether the worker's own script has changed when it sees fit, after a reload for example: no page or
// worker makes that request or can refuse it, and it carries nothing.
const askedByThePage = () => server.requests.filter((request) => request.path !== '/sw.js');

test('the page opens and locates without network; sealed, it reaches nothing', async () => {
  const page = await newPage(browser, server, '');
  await loadModel(page);
  await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
  await page.context().setOffline(true);
  server.requests.length = 0;
  await page.reload();
  await loadModel(page);
  await page.getByText('0 requests since the model was loaded.').waitFor();
  await page.getByRole('button', { name: 'Seal the page' }).click();
  await page.getByRole('button', { name: 'Sealed' }).waitFor();
  await page.context().setOffline(false);

  server.requests.length = 0;
  await setLocator(page, { samples: 1, maxTokens: 6, temperature: 0 });
  await choosePhoto(page);
  await page.getByRole('button', { name: 'Locate', exact: true }).click();
  await page.locator('.headline').waitFor({ timeout: 60_000 });
  assert.deepEqual(askedByThePage(), [], 'locating asked for nothing');
  await page.getByText('0 requests since the model was loaded.').waitFor();

  const refused = await page.evaluate(() => fetch('/blank.html').then(() => 'answered', () => 'refused'));
  assert.equal(refused, 'refused');
  const image = await page.evaluate(() => new Promise((done) => Object.assign(new Image(), { onload: () => done('answered'), onerror: () => done('refused'), src: '/x.png' })));
  assert.equal(image, 'refused');
  await page.getByText('2 requests refused.').waitFor();
  const opened = page.context().waitForEvent('page');
  await page.evaluate(() => void open('/blank.html?what=the-photo-shows'));
  await (await opened).getByText('This site is sealed in one of its tabs').waitFor();
  await page.getByText('3 requests refused.').waitFor();
  assert.deepEqual(askedByThePage(), [], 'nothing reached the network');
  assert.deepEqual(page.faults, []);
  await page.context().close();
});

test('without network and without a model the page says so, and tries again', async () => {
  const page = await newPage(browser, server, '');
  await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
  await page.context().setOffline(true);
  await page.reload();
  await page.getByText(/this device is offline, and the model is not stored\.$/).waitFor();
  await page.context().setOffline(false);
  await page.getByRole('button', { name: 'Try again' }).click();
  await page.getByRole('button', { name: /^Download and load/ }).waitFor();
  assert.deepEqual(page.faults, []);
  await page.context().close();
});

test('a second tab does not unseal the first one', async () => {
  const page = await newPage(browser, server, '');
  await loadModel(page);
  await page.getByText('0 requests since the model was loaded.').waitFor();
  await page.getByRole('button', { name: 'Seal the page' }).click();
  await page.getByRole('button', { name: 'Sealed' }).waitFor();
  const second = await page.context().newPage();
  await second.goto(server.url);
  await second.getByRole('button', { name: 'Load the stored model' }).waitFor();
  server.requests.length = 0;
  const fetched = (page) => page.evaluate(() => fetch('/blank.html').then(() => 'answered', () => 'refused'));
  assert.equal(await fetched(page), 'refused');
  assert.deepEqual(askedByThePage(), []);
  assert.equal(await fetched(second), 'answered');
  const [worker] = page.workers();
  assert.equal(await worker.evaluate(() => fetch('/blank.html').then(({ headers }) => (headers.has('globe-sealed') ? 'refused' : 'answered'))), 'refused', 'nor by the worker');
  await page.getByText('2 requests refused.').waitFor();

  server.requests.length = 0;
  const elsewhere = await second.evaluate(async () => {
    const { Globe } = await import('/globe/globe.js');
    return Globe.load({ url: '/models/another/' }).catch(({ code, message }) => `${code}: ${message}`);
  });
  assert.match(elsewhere, /^Network: .* a tab of this site is sealed/, 'whose worker is told why it gets nothing');
  assert.deepEqual(askedByThePage(), []);
  await page.reload();
  await page.getByRole('button', { name: 'Load the stored model' }).waitFor();
  assert.equal(await fetched(page), 'answered', 'loaded anew, the page is open again');
  await page.context().close();
});

test('what is no photo is a sentence with a code, and the picture is forgotten', async (t) => {
  const page = await newPage(browser, server, '');
  await loadModel(page);
  const heic = Buffer.concat([Buffer.from([0, 0, 0, 24]), Buffer.from('ftypheic'), Buffer.alloc(64)]);
  // A PNG header that declares 60,000 x 60,000 pixels.
  const huge = Buffer.from(readFileSync(join(GOLDEN, 'images/small_40x30.png')));
  huge.writeUInt32BE(60_000, 16);
  huge.writeUInt32BE(60_000, 20);
  huge.writeUInt32BE(crc32(huge.subarray(12, 29)), 29);
  const cases = {
    'text.jpg': [Buffer.from('no image'), /Unknown image format/],
    'empty.png': [Buffer.alloc(0), /Image is empty/],
    'photo.heic': [heic, /HEIC images are not supported: convert it to JPEG/],
    'huge.png': [huge, /^The photo takes more memory than this page has; make it smaller\.$/],
    'cut.png': [readFileSync(join(GOLDEN, 'images/odd_187x131.png')).subarray(0, 9000), /ends before its image does/],
  };
  for (const [name, [buffer, message]] of Object.entries(cases)) {
    await t.test(name, async () => {
      await page.locator('globe-locator').evaluate((element) => {
        window.code = null;
        element.addEventListener('error', ({ detail }) => (window.code = detail.code), { once: true });
      });
      await choosePhoto(page, { name, mimeType: 'image/jpeg', buffer });
      await page.getByRole('alert').getByText(message).waitFor();
      assert.equal(await page.evaluate(() => window.code), 'Image');
    });
  }
  const revoked = await page.evaluate(async () => {
    const locator = document.querySelector('globe-locator');
    const url = locator.renderRoot.querySelector('.photo img').src;
    locator.remove();
    return fetch(url).then(() => 'kept', () => 'revoked');
  });
  assert.equal(revoked, 'revoked');
  assert.deepEqual(page.faults, []);
  await page.context().close();
});

test('a new version of the page waits until no page of the old one is left', async () => {
  const context = await browser.newContext();
  const open = async () => {
    const page = await context.newPage();
    page.setDefaultTimeout(15_000);
    await page.goto(server.url);
    await page.evaluate(() => navigator.serviceWorker.ready);
    return page;
  };
  const first = await open();
  await first.waitForFunction(() => navigator.serviceWorker.controller);
  const served = readFileSync(join(WEB, 'site/sw.js'), 'utf8');
  server.files['/style.css'] = Buffer.from('body { --version: new }');
  server.files['/sw.js'] = Buffer.from(served.replace(/[0-9a-f]{16}(?=["`'])/, '0123456789abcdef'));
  assert.ok(!server.files['/sw.js'].equals(Buffer.from(served)), 'the version was found');
  const style = (page) => page.evaluate(async () => (await (await fetch('style.css')).text()).includes('--version: new'));
  await first.evaluate(async () => {
    const registration = await navigator.serviceWorker.getRegistration();
    await registration.update();
    const next = registration.installing ?? registration.waiting;
    if (next.state === 'installing') await new Promise((done) => next.addEventListener('statechange', done, { once: true }));
  });
  assert.equal(await style(first), false, 'the page at hand keeps its version');
  const second = await open();
  assert.equal(await style(second), false, 'and so does one beside it');
  await first.close();
  await second.close();
  const third = await open();
  await third.waitForFunction(async () => (await (await fetch('style.css')).text()).includes('--version: new'));
  delete server.files['/style.css'];
  delete server.files['/sw.js'];
  await context.close();
});
