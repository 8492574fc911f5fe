// A visitor's first visit and a second one without network, with times and pictures to look at.
//
// node scripts/visitor.mjs [MODEL_FOLDER [PHOTO]]   (after cargo xtask web; a folder that globe convert made, or a golden)
// Pictures go to test-artefacts.

import { existsSync, mkdirSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ARTEFACTS, GOLDEN, WEB, launch, newPage } from '../tests/browser.mjs';
import { serve } from '../tests/server.mjs';
import { listFiles } from './list-files.mjs';

const model = process.argv[2] ?? join(GOLDEN, 'window112');
const photo = process.argv[3] ?? join(GOLDEN, 'images/photo.jpg');
const served = existsSync(join(model, 'manifest.json')) ? model : mkdtempSync(join(tmpdir(), 'globe-model-'));
if (served !== model) await listFiles(model, served);
mkdirSync(ARTEFACTS, { recursive: true });

const server = await serve({ '/': join(WEB, 'site'), '/models/demo/': served });
const browser = await launch();
const begun = performance.now();
const at = (what) => console.log(`${((performance.now() - begun) / 1000).toFixed(1).padStart(6)} s  ${what}`);
const page = await newPage(browser, server, '');
page.setDefaultTimeout(300_000);
page.on('console', (message) => console.log(`console: ${message.text()}`));
try {
  for (const visit of ['online', 'offline']) {
    if (visit === 'offline') {
      await page.waitForFunction(() => navigator.serviceWorker.controller);
      await page.context().setOffline(true);
      await page.reload();
      server.requests.length = 0;
    }
    const button = page.getByRole('button', { name: /Download and load|Load the stored model/ });
    await button.waitFor();
    at(`${visit}: the page offers "${await button.innerText()}"`);
    await button.click();
    await page.getByText(/Model ready/).waitFor();
    at('the model is ready');
    await page.locator('#file').setInputFiles(photo);
    await page.getByRole('button', { name: 'Locate', exact: true }).click();
    await page.locator('.headline').waitFor();
    at(`answered: ${await page.locator('.headline').innerText()}`);
    await page.screenshot({ path: join(ARTEFACTS, `visitor-${visit}.png`), fullPage: true });
  }
  await page.getByRole('button', { name: 'Seal the page' }).click();
  await page.getByRole('button', { name: 'Sealed' }).waitFor();
  at(`sealed: ${await page.locator('#network').innerText()} ${await page.locator('#seal-words').innerText()}`);
  console.log(`requests that reached the server in the second visit: ${server.requests.filter(({ path }) => path !== '/sw.js').length}`);
  console.log(`errors nobody caught: ${page.faults.length}`);
} finally {
  await browser.close();
  await server.close();
}
