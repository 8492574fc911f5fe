// Every example, built and opened as its reader would.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { build } from 'vite';
import { GOLDEN, WEB, launch, newPage } from './browser.mjs';
import { serve } from './server.mjs';

const PHOTO = join(GOLDEN, 'images/small_40x30.png');
const MODEL = join(GOLDEN, 'untied');

let browser;
before(async () => (browser = await launch()));
after(() => browser?.close());

/** Opens an example on a server of its own. */
async function open(folder, work, headers = {}) {
  const server = await serve({ '/': folder, '/dist/': join(WEB, 'dist'), '/model/': MODEL }, headers);
  try {
    const page = await newPage(browser, server, '');
    const refused = [];
    page.on('console', (message) => message.type() === 'error' && /Content Security Policy/.test(message.text()) && !/inline script/.test(message.text()) && refused.push(message.text()));
    await work(page);
    assert.deepEqual(page.faults, []);
    assert.deepEqual(refused, []);
    await page.context().close();
  } finally {
    await server.close();
  }
}

/** Loads and locates by the buttons of the element. */
async function useElement(page) {
  await page.getByRole('button', { name: /^Download and load, \d+\s[kM]B$/ }).click();
  await page.getByText(/Model ready/).waitFor({ timeout: 120_000 });
  await page.locator('globe-locator').evaluate((element) => Object.assign(element, { samples: 1, maxTokens: 4 }));
  await page.locator('#file').setInputFiles(PHOTO);
  await page.getByRole('button', { name: 'Locate', exact: true }).click();
  await page.locator('.headline').waitFor({ timeout: 60_000 });
}

test('plain HTML', () => open(join(WEB, 'examples/plain'), useElement));

test('a strict policy, sent as a header', () => {
  const policy = readFileSync(join(WEB, 'examples/strict-csp/policy.txt'), 'utf8').trim();
  return open(join(WEB, 'examples/strict-csp'), async (page) => {
    await page.locator('#photo').setInputFiles(PHOTO);
    await page.waitForFunction(() => /^(not located|.+, .+)$/.test(document.querySelector('#place').value), null, { timeout: 60_000 });
    const ran = await page.evaluate(() => {
      document.head.append(Object.assign(document.createElement('script'), { textContent: 'window.ran = true' }));
      return window.ran ?? false;
    });
    assert.equal(ran, false, 'the policy is in force');
  }, { 'content-security-policy': policy });
});

test('Vite and React', async () => {
  const root = join(WEB, 'examples/react');
  await build({ root, configFile: join(root, 'vite.config.js'), logLevel: 'error' });
  await open(join(root, 'dist'), async (page) => {
    await useElement(page);
    await page.locator('output').getByText(/not located|\w+/).waitFor();
    assert.notEqual(await page.locator('output').textContent(), 'no photo yet', 'React heard the event');
  });
});
