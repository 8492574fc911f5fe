// What a visitor can do with the element: every way to give a photo, what is shown of it, the map, models and settings.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { listFiles } from '../scripts/list-files.mjs';
import { ARTEFACTS, GOLDEN, WEB, assertNoWorker, launch, newPage } from './browser.mjs';
import { EXAMPLE } from './example-result.mjs';
import { withExif } from './exif.mjs';
import { serve } from './server.mjs';

const JPEG = readFileSync(join(GOLDEN, 'images/photo.jpg')); // 240 x 180
const LISBON = { lat: 38.71, lon: -9.14 };
const CAMERA = ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'];

let server, browser, model;
before(async () => {
  mkdirSync(ARTEFACTS, { recursive: true });
  model = mkdtempSync(join(tmpdir(), 'globe-model-'));
  await listFiles(join(GOLDEN, 'window112'), model);
  server = await serve({ '/': join(WEB, 'site'), '/models/demo/': model });
  browser = await launch({ flags: CAMERA });
});
beforeEach(() => (server.requests.length = 0));
after(async () => {
  await browser?.close();
  await server?.close();
});

const locator = (page) => page.locator('globe-locator');
const set = (page, values) => locator(page).evaluate((element, values) => void Object.assign(element, values), values);
const get = (page, name) => locator(page).evaluate((element, name) => element[name], name);
const ready = (page) => page.getByText(/Model ready/).waitFor({ timeout: 120_000 });

async function loadModel(page) {
  await page.getByRole('button', { name: /Download and load|Load the stored model/ }).click();
  await ready(page);
}

async function locate(page, options = {}) {
  await set(page, { samples: 1, maxTokens: 6, temperature: 0, ...options });
  await page.getByRole('button', { name: 'Locate', exact: true }).click();
  await page.locator('.headline').waitFor({ timeout: 60_000 });
}

async function inPage(work, options = {}) {
  const page = await newPage(browser, server, '', options);
  await work(page);
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

const photo = (name, buffer = JPEG) => ({ name, mimeType: 'image/jpeg', buffer });
const preview = (page) => page.locator('.photo img');

/** Width and height as the browser shows the preview, once it is there. */
async function shown(page) {
  await preview(page).waitFor();
  await page.waitForFunction(() => document.querySelector('globe-locator').renderRoot.querySelector('.photo img')?.naturalWidth > 0);
  return preview(page).evaluate((image) => [image.naturalWidth, image.naturalHeight]);
}

test('size and consent come first: nothing of the model is asked for before the button', () => inPage(async (page) => {
  const button = page.getByRole('button', { name: /^Download and load, \d+\s[kM]B$/ });
  await button.waitFor();
  await page.getByText('The model stays on this device until you delete it. Photos never leave it.').waitFor();
  const before = server.requests.map(({ path }) => path).filter((path) => path.startsWith('/models/'));
  assert.deepEqual(before.filter((path) => !/(manifest|files|about)\.json$/.test(path)), []);
  const heard = locator(page).evaluate((element) => new Promise((resolve) => {
    const stages = [];
    element.addEventListener('model-progress', ({ detail }) => stages.push(detail));
    element.addEventListener('ready', () => resolve(stages));
  }));
  await button.click();
  await ready(page);
  const stages = await heard;
  assert.deepEqual([...new Set(stages.map(({ stage }) => stage))], ['fetch', 'upload']);
  const last = stages.filter(({ stage }) => stage === 'fetch').at(-1);
  assert.ok(last.total > 10_000 && last.done === last.total, 'bytes are counted to the end');
}));

test('a photo is dropped, pasted or taken by the camera', async (t) => {
  const give = {
    dropped: (page) => page.evaluate(async (bytes) => {
      const section = document.querySelector('globe-locator').renderRoot.querySelector('section');
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([new Uint8Array(bytes)], 'dropped.jpg', { type: 'image/jpeg' }));
      section.dispatchEvent(new DragEvent('dragover', { dataTransfer, cancelable: true, bubbles: true }));
      section.dispatchEvent(new DragEvent('drop', { dataTransfer, cancelable: true, bubbles: true }));
    }, [...JPEG]),
    'dropped beside it': (page) => page.evaluate(async (bytes) => {
      const map = document.querySelector('globe-locator').renderRoot.querySelector('globe-map');
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([new Uint8Array(bytes)], 'dropped.jpg', { type: 'image/jpeg' }));
      for (const type of ['dragover', 'drop']) {
        if (map.dispatchEvent(new DragEvent(type, { dataTransfer, cancelable: true, bubbles: true, composed: true }))) throw new Error('the browser would open it');
      }
    }, [...JPEG]),
    pasted: (page) => page.evaluate(async (bytes) => {
      const clipboardData = new DataTransfer();
      clipboardData.items.add(new File([new Uint8Array(bytes)], 'pasted.jpg', { type: 'image/jpeg' }));
      document.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true }));
    }, [...JPEG]),
    'taken by the camera': async (page) => {
      await page.getByRole('button', { name: 'Use the camera' }).click();
      const video = page.getByLabel('Camera', { exact: true });
      await video.waitFor();
      await page.waitForFunction(() => document.querySelector('globe-locator').renderRoot.querySelector('video').videoWidth > 0);
      await page.getByRole('button', { name: 'Take the photo' }).click();
    },
  };
  for (const [way, act] of Object.entries(give)) {
    await t.test(way, () => inPage(async (page) => {
      await act(page);
      const [width, height] = await shown(page);
      assert.ok(way === 'taken by the camera' ? width > 0 && height > 0 : width === 240 && height === 180, `${width} x ${height}`);
      assert.equal(await page.locator('video').count(), 0, 'the camera is released');
    }, { permissions: ['camera'] }));
  }
});

test('what is pasted into a field of the page is left there', () => inPage(async (page) => {
  await page.evaluate(async (bytes) => {
    const field = document.body.appendChild(document.createElement('textarea'));
    const clipboardData = new DataTransfer();
    clipboardData.items.add(new File([new Uint8Array(bytes)], 'pasted.jpg', { type: 'image/jpeg' }));
    if (!field.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }))) throw new Error('taken');
  }, [...JPEG]);
  assert.equal(await get(page, 'photo'), null);
}));

test('a result that is set after a failure is shown', () => inPage(async (page) => {
  await set(page, { result: EXAMPLE });
  await locator(page).evaluate((element) => element.take(new Blob(['no image'])));
  await page.getByRole('alert').waitFor();
  await set(page, { result: { ...EXAMPLE } });
  await page.locator('.headline').waitFor();
  assert.equal(await page.getByRole('alert').count(), 0);
}));

test('what is no photo is said before a model is loaded as well, HEIC by name', () => inPage(async (page) => {
  const heic = Buffer.concat([Buffer.from([0, 0, 0, 24]), Buffer.from('ftypheic'), Buffer.alloc(64)]);
  await page.locator('#file').setInputFiles({ name: 'photo.heic', mimeType: 'image/heic', buffer: heic });
  await page.getByRole('alert').getByText(/convert HEIC photos to JPEG\.$/).waitFor();
  await page.locator('#file').setInputFiles(photo('photo.jpg'));
  await shown(page);
  assert.equal(await page.getByRole('alert').count(), 0);
}));

test('what the engine knows of a photo is forgotten with it', () => inPage(async (page) => {
  await loadModel(page);
  await page.locator('#file').setInputFiles(photo('first.jpg'));
  await locate(page);
  await locator(page).evaluate(({ globe }) => {
    window.forgotten = 0;
    const { forget } = globe;
    globe.forget = () => (window.forgotten++, forget.call(globe));
  });
  await page.locator('#file').setInputFiles(photo('second.jpg'));
  await page.waitForFunction(() => window.forgotten === 1);
}));

test('a camera that is refused is a sentence', () => inPage(async (page) => {
  await page.evaluate(() => {
    MediaDevices.prototype.getUserMedia = () => Promise.reject(new DOMException('refused', 'NotAllowedError'));
  });
  await page.getByRole('button', { name: 'Use the camera' }).click();
  await page.getByRole('alert').getByText('No camera can be used here; choose a photo instead.').waitFor();
}));

test('the photo stands upright, its position is shown apart and compared, and the model does not see it', () => inPage(async (page) => {
  await loadModel(page);
  await page.locator('#file').setInputFiles(photo('turned.jpg', withExif(JPEG, 6, LISBON)));
  assert.deepEqual(await shown(page), [180, 240], 'turned by its EXIF orientation');
  await page.getByText('The file itself holds a position. The model does not see it.').waitFor();
  assert.equal(await page.getByRole('button', { name: 'Compare with it' }).count(), 0, 'not before the model has answered');
  await locate(page);
  assert.deepEqual(await page.evaluate(() => document.querySelector('globe-locator').result.exif_gps), LISBON);

  await set(page, { result: EXAMPLE });
  await page.getByRole('button', { name: 'Compare with it' }).click();
  await page.getByText(/^The file says 38\.71° N, 9\.14° W: 0\.9 km from the first place\.$/).waitFor();
  await page.locator('globe-map path.photo').waitFor({ state: 'attached' });
  await page.screenshot({ path: join(ARTEFACTS, 'position.png'), fullPage: true });
  await set(page, { result: { ...EXAMPLE, candidates: [] } });
  await page.getByText(/^The file says 38\.71° N, 9\.14° W\.$/).waitFor();

  const answer = async (file) => {
    await page.locator('#file').setInputFiles(file);
    await locate(page, { maxTokens: 16 });
    const { answers, prompt_sha256 } = await get(page, 'result');
    return { texts: answers.map(({ text }) => text), prompt_sha256 };
  };
  const upright = await answer(photo('a.jpg', withExif(JPEG, 1, LISBON)));
  assert.deepEqual(upright, await answer(photo('b.jpg', withExif(JPEG, 1, { lat: -33.9, lon: 151.2 }))), 'equal pixels, equal answers');
  assert.deepEqual(upright, await answer(photo('c.jpg', JPEG)));
}));

test('clues and places are marked in the reasoning', () => inPage(async (page) => {
  await page.locator('#file').setInputFiles(photo('photo.jpg'));
  await set(page, { result: EXAMPLE });
  const marked = (kind) => page.locator(`.reasoning mark.${kind}`).allTextContents();
  await page.locator('.reasoning').waitFor();
  const clues = await marked('clue');
  for (const clue of ['cobblestones', 'tram', 'balconies', 'roof tiles', 'street sign', 'language', 'licence plate']) {
    assert.ok(clues.includes(clue), `${clue} among ${clues.join(', ')}`);
  }
  assert.deepEqual([...new Set(await marked('place'))].sort(), ['Lisbon', 'Porto']);
}));

test('the map has a pin and a circle for each place, zooms, and goes back to the world', () => inPage(async (page) => {
  await page.locator('#file').setInputFiles(photo('photo.jpg'));
  await set(page, { result: EXAMPLE });
  const map = page.locator('globe-map');
  await map.locator('svg path.land').waitFor({ state: 'attached' });
  await page.getByRole('button', { name: 'World' }).click();
  // On its way to the world the map draws the views in between.
  const settled = () => map.evaluate(async (element) => (await element.updateComplete) && !element.drawing && element.drawn?.view === element.view);
  for (let i = 0; i < 200 && !(await settled()); i++) await page.waitForTimeout(50);
  const drawn = [await map.locator('g.pin').count(), await map.locator('path.circle').count()];
  assert.deepEqual(drawn, [3, 3]);
  const land = () => map.locator('path.land').getAttribute('d');
  /** Waits until the map shows another view: it is drawn in slices. */
  const changed = async (from) => {
    for (let i = 0; i < 100 && (await land()) === from; i++) await page.waitForTimeout(50);
    assert.notEqual(await land(), from);
    return land();
  };
  const world = await land();
  await page.getByRole('button', { name: 'Zoom in' }).click();
  const near = await changed(world);
  await page.getByRole('button', { name: 'Zoom out' }).click();
  await changed(near);
  assert.match(await map.locator('svg').getAttribute('aria-label'), /Lisbon/);
}));

test('models are checked, deleted and replaced by one of the visitor', () => inPage(async (page) => {
  await loadModel(page);
  await page.getByText(/Model ready/).click();
  await page.getByText('Verified').waitFor();
  await page.getByText('every byte, by SHA-256').waitFor();
  await page.getByText('Stored models').click();
  await page.getByRole('button', { name: 'Check /models/demo/' }).click();
  await page.getByText(/^All \d+\s[kM]B are as they should be\.$/).waitFor();
  await page.getByRole('button', { name: 'Delete /models/demo/' }).click();
  await page.getByText('Stored models').waitFor({ state: 'detached' });
  await page.getByRole('button', { name: 'Unload the model' }).click();
  await page.getByRole('button', { name: /^Download and load/ }).waitFor();
  assert.equal(page.workers().length, 0, 'the worker ended');

  server.requests.length = 0;
  await page.locator('#folder').setInputFiles(model);
  await ready(page);
  const { verified, storage } = await locator(page).evaluate((element) => element.globe.info);
  assert.deepEqual({ verified, storage }, { verified: true, storage: 'none' });
  assert.deepEqual(server.requests.filter(({ path }) => path.startsWith('/models/demo/model')), []);
  await page.locator('#file').setInputFiles(photo('photo.jpg'));
  await locate(page);
}));

test('settings are those of the run, and of its timings', () => inPage(async (page) => {
  await page.getByText('Settings', { exact: true }).click();
  await page.getByLabel('Computes on').selectOption('cpu');
  await loadModel(page);
  await page.getByText('Model ready on the processor, slowly').waitFor();
  for (const [label, value] of [['Answers', '2'], ['Temperature', '0.5'], ['Seed', '11'], ['Longest answer, tokens', '5']]) {
    await page.getByLabel(label, { exact: true }).fill(value);
    await page.getByLabel(label, { exact: true }).blur();
  }
  await page.locator('#file').setInputFiles(photo('photo.jpg'));
  await page.getByRole('button', { name: 'Locate', exact: true }).click();
  await page.locator('.headline').waitFor({ timeout: 60_000 });
  const { samples, seed, sampling, answers } = await get(page, 'result');
  assert.deepEqual([samples, seed, sampling.temperature], [2, 11, 0.5]);
  assert.ok(answers.every(({ tokens }) => tokens <= 5));
  await page.getByText('Timings and settings of this result').click();
  await page.getByText('temperature 0.5, seed 11, 2 answers').waitFor();
  await page.getByText(/^\d+ tokens, 54 of the image; \d/).waitFor();
  await page.getByText(/^\d+ tokens in [\d.]+ s \([\d.]+ a second\)$/).waitFor();
  await page.getByText('Memory of the engine').waitFor();
  await page.getByText(/^\d+\s[MG]B$/).first().waitFor();
}));

test('a picture is forgotten when another takes its place', () => inPage(async (page) => {
  await page.locator('#file').setInputFiles(photo('first.jpg'));
  await shown(page);
  const first = await preview(page).getAttribute('src');
  await page.getByRole('button', { name: 'Another photo' }).waitFor();
  await page.locator('#file').setInputFiles(photo('second.jpg', withExif(JPEG, 6, LISBON)));
  await page.waitForFunction((first) => document.querySelector('globe-locator').renderRoot.querySelector('.photo img').src !== first, first);
  assert.equal(await page.evaluate((url) => fetch(url).then(() => 'kept', () => 'revoked'), first), 'revoked');
}));

test('nothing moves for those who asked for less motion', async () => {
  const durations = {};
  for (const reducedMotion of ['reduce', 'no-preference']) {
    await inPage(async (page) => {
      const button = page.getByRole('button', { name: 'Choose a photo' });
      durations[reducedMotion] = await button.evaluate((element) => getComputedStyle(element).transitionDuration);
    }, { reducedMotion });
  }
  assert.equal(durations.reduce, '0s');
  assert.notEqual(durations['no-preference'], '0s');
});

test('a hidden tab goes on', () => inPage(async (page) => {
  await loadModel(page);
  await page.locator('#file').setInputFiles(photo('photo.jpg'));
  await set(page, { samples: 1, maxTokens: 24, temperature: 0 });
  // What a browser does to a page behind another one: nothing is drawn any more, and timers come once a second.
  await page.evaluate(() => {
    window.requestAnimationFrame = () => 0;
    const { setTimeout } = window;
    window.setTimeout = (work, ms, ...args) => setTimeout(work, Math.max(1000, ms ?? 0), ...args);
    Object.defineProperty(document, 'visibilityState', { get: () => 'hidden' });
    Object.defineProperty(document, 'hidden', { get: () => true });
    document.dispatchEvent(new Event('visibilitychange'));
  });
  const other = await page.context().newPage();
  await other.bringToFront();
  const tokens = await locator(page).evaluate(async (element) => (await element.locate()).answers[0].tokens);
  assert.ok(tokens > 0);
}));

test('the keyboard alone goes from an empty page to a result', () => inPage(async (page) => {
  await page.getByRole('button', { name: /^Download and load/ }).waitFor();
  const focused = () => page.evaluate(() => {
    let element = document.activeElement;
    while (element?.shadowRoot?.activeElement) element = element.shadowRoot.activeElement;
    return element === document.body ? '' : (element?.textContent?.trim() ?? '');
  });
  const tabTo = async (name) => {
    for (let i = 0; i < 12; i++) {
      await page.keyboard.press('Tab');
      if (name.test(await focused())) return;
    }
    assert.fail(`${name} is not reached by Tab`);
  };
  await tabTo(/^Download and load/);
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: 'Stop' }).waitFor();
  assert.match(await focused(), /^(Stop|Model ready.*)$/s, 'what took the place of the button has the focus');
  await ready(page);
  assert.match(await focused(), /^Model ready/);
  await set(page, { samples: 1, maxTokens: 4 });
  await tabTo(/^Choose a photo$/);
  const chosen = page.waitForEvent('filechooser');
  await focused(); // by then the browser knows that somebody waits
  await page.keyboard.press('Enter');
  await (await chosen).setFiles(photo('photo.jpg'));
  await shown(page);
  assert.equal(await focused(), 'Locate');
  await page.keyboard.press('Enter');
  await page.locator('.headline').waitFor({ timeout: 60_000 });
  assert.equal(await focused(), 'Locate');
}));

test('an element that is removed while it loads leaves no worker behind', () => inPage(async (page) => {
  // The weights never arrive.
  server.faults['/models/demo/model-00001-of-00003.safetensors'] = (bytes, _, response) => (response.writeHead(200, { 'content-length': bytes.length }), null);
  await page.getByRole('button', { name: /^Download and load/ }).click();
  await page.getByRole('button', { name: 'Stop' }).waitFor();
  await locator(page).evaluate((element) => {
    window.removed = element;
    element.remove();
  });
  await assertNoWorker(page, 'removed');
  assert.equal(await page.evaluate(() => window.removed.globe), null);
  delete server.faults['/models/demo/model-00001-of-00003.safetensors'];
}));

test('a photo that is set takes the place of the one that is being located', () => inPage(async (page) => {
  await loadModel(page);
  await page.locator('#file').setInputFiles(photo('first.jpg'));
  await set(page, { samples: 50, maxTokens: 400 });
  const first = locator(page).evaluate((element) => element.locate());
  await page.getByText(/^Answer \d+ of 50$/).waitFor();
  await locator(page).evaluate((element) => (element.photo = new Blob([element.photo])));
  assert.equal(await first, null, 'stopped');
  await locate(page);
  assert.equal((await get(page, 'result')).samples, 1);
}));

test('a load and an answer are stopped by the button', () => inPage(async (page) => {
  const first = '/models/demo/model-00001-of-00003.safetensors';
  server.faults[first] = (bytes, _, response) => (response.writeHead(200, { 'content-length': bytes.length }), null);
  await page.getByRole('button', { name: /^Download and load/ }).click();
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.getByRole('button', { name: /^Download and load/ }).waitFor();
  delete server.faults[first];
  assert.equal(await page.getByRole('alert').count(), 0, 'a stop is no fault');

  await loadModel(page);
  await page.locator('#file').setInputFiles(photo('photo.jpg'));
  await set(page, { samples: 50, maxTokens: 400 });
  await page.getByRole('button', { name: 'Locate', exact: true }).click();
  await page.getByText(/^Answer \d+ of 50$/).waitFor({ timeout: 60_000 });
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.getByRole('button', { name: 'Locate', exact: true }).waitFor();
  assert.equal(await page.getByRole('alert').count(), 0);
  assert.equal(await get(page, 'result'), null);
  await locate(page);
}));

test('another model takes the place of the one at hand, which answers no more', () => inPage(async (page) => {
  await loadModel(page);
  await set(page, { model: '/models/nowhere/' });
  await page.getByText(/^No model is at .*models\/nowhere\/: it has neither/).waitFor();
  assert.equal(await get(page, 'globe'), null);
  await assertNoWorker(page, 'unloaded');
  await set(page, { model: '/models/demo/' });
  await page.getByRole('button', { name: 'Load the stored model' }).click();
  // Changed before it is there.
  await page.getByRole('button', { name: 'Stop' }).waitFor();
  await set(page, { model: '/models/nowhere/' });
  await page.getByText(/^No model is at .*models\/nowhere\/: it has neither/).waitFor();
  await assertNoWorker(page, 'stopped');
  assert.equal(await get(page, 'globe'), null);
  await set(page, { model: '/models/demo/' });
  await page.getByRole('button', { name: 'Load the stored model' }).click();
  await ready(page);
}));

test('attributes leave out the map and the store, and say how many places are shown', () => inPage(async (page) => {
  await locator(page).evaluate((element) => {
    for (const name of ['no-map', 'no-cache']) element.setAttribute(name, '');
    element.setAttribute('top-k', '2');
  });
  await page.getByText('The model is gone when this page is closed. Photos never leave it.').waitFor();
  await loadModel(page);
  const { storage } = await locator(page).evaluate((element) => element.globe.info);
  assert.equal(storage, 'memory');
  assert.equal(await page.locator('globe-map').count(), 0);
  const asked = page.evaluate(() => new Promise((done) => {
    const globe = document.querySelector('globe-locator').globe;
    const { locate } = globe;
    globe.locate = (photo, options) => (done(options.topK), locate.call(globe, photo, options));
  }));
  await page.locator('#file').setInputFiles(photo('photo.jpg'));
  await locate(page);
  assert.equal(await asked, 2);
  assert.equal(await page.locator('globe-map').count(), 0);
}));

test('the dial turns back and is disabled where nobody can round', () => inPage(async (page) => {
  await loadModel(page);
  await page.locator('#file').setInputFiles(photo('photo.jpg'));
  await locate(page);
  await locator(page).evaluate((element) => (element.globe.rounded = async () => Promise.reject(new Error('gone'))));
  await page.getByRole('radio', { name: 'country' }).click();
  await page.waitForFunction(() => document.querySelector('globe-locator').precision === 'city');
  assert.ok(await page.getByRole('radio', { name: 'city' }).isChecked());
  assert.ok(await page.getByRole('radio', { name: 'country' }).isDisabled());
}));

test('a model that cannot be deleted is a sentence', async () => {
  server.beforeWorker(`FileSystemDirectoryHandle.prototype.removeEntry = () => Promise.reject(new DOMException('it is open', 'NoModificationAllowedError'))`);
  await inPage(async (page) => {
    await loadModel(page);
    const refused = async () => {
      await page.getByText('Stored models').click();
      await page.getByRole('button', { name: 'Delete /models/demo/' }).click();
      await page.getByText('It is open.').waitFor();
      await page.getByRole('button', { name: 'Delete /models/demo/' }).waitFor();
    };
    await page.getByText(/Model ready/).click();
    await refused();
    await page.getByRole('button', { name: 'Unload the model' }).click();
    await page.getByRole('button', { name: 'Load the stored model' }).waitFor();
    await refused();
  });
  server.faults = {};
});

test('a field that is emptied keeps its value', () => inPage(async (page) => {
  await page.getByText('Settings', { exact: true }).click();
  const answers = page.getByLabel('Answers', { exact: true });
  for (const wrong of ['', '0', '1.5']) {
    await answers.fill(wrong);
    await answers.blur();
    assert.equal(await answers.inputValue(), '8', `after ${JSON.stringify(wrong)}`);
  }
  assert.equal(await get(page, 'samples'), 8);
}));

test('a camera that comes too late is released', () => inPage(async (page) => {
  await page.evaluate(() => {
    const { getUserMedia } = MediaDevices.prototype;
    MediaDevices.prototype.getUserMedia = async function (...args) {
      window.stream = await getUserMedia.apply(this, args);
      await new Promise((resolve) => (window.grant = resolve));
      return window.stream;
    };
  });
  await page.getByRole('button', { name: 'Use the camera' }).click();
  await page.waitForFunction(() => window.grant);
  await page.locator('#file').setInputFiles(photo('photo.jpg'));
  await shown(page);
  await page.evaluate(() => window.grant());
  await page.waitForFunction(() => window.stream.getTracks().every(({ readyState }) => readyState === 'ended'));
  assert.equal(await page.locator('video').count(), 0);
}, { permissions: ['camera'] }));
