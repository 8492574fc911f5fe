// The command that a reader of README runs: it builds the page, serves it, and the page answers a photo.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { GOLDEN, launch } from './browser.mjs';

/** Lines until the one that names the address. */
async function addressOf(demo) {
  const said = [];
  for await (const line of createInterface({ input: demo.stdout })) {
    said.push(line);
    const [address] = /http:\/\/localhost:\d+\//.exec(line) ?? [];
    if (address) return { address, said };
  }
  throw new Error(`the demo ended: ${said.join('\n')}`);
}

test('cargo xtask web demo serves a page that answers a photo', async () => {
  const program = process.env.XTASK;
  assert.ok(program, 'name the built xtask in the variable XTASK, as `cargo xtask web test` does');
  const demo = spawn(program, ['web', 'demo'], { env: { ...process.env, PORT: '0' }, stdio: ['ignore', 'pipe', 'inherit'] });
  const browser = await launch();
  try {
    const { address, said } = await addressOf(demo);
    assert.match(said.join(' '), /RANDOM WEIGHTS: this demo's model was never trained/);
    const page = await browser.newPage();
    page.setDefaultTimeout(60_000);
    const faults = [];
    page.on('pageerror', (error) => faults.push(String(error)));
    await page.goto(address);
    await page.getByText("This demo's model has random weights").waitFor();
    await page.getByRole('button', { name: /^Download and load/ }).click();
    await page.getByText(/Model ready/).waitFor();
    await page.locator('globe-locator').evaluate((element) => Object.assign(element, { samples: 1, maxTokens: 6 }));
    await page.locator('#file').setInputFiles(join(GOLDEN, 'images/photo.jpg'));
    await page.getByRole('button', { name: 'Locate', exact: true }).click();
    await page.locator('.headline').waitFor();
    assert.deepEqual(faults, []);
  } finally {
    demo.kill();
    await browser.close();
  }
});
