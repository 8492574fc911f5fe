// The page answers a visitor at all times: no task of its main thread takes 50 ms, the limit for a "long task".

import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { listFiles } from '../scripts/list-files.mjs';
import { GOLDEN, WEB, launch, newPage } from './browser.mjs';
import { EXAMPLE } from './example-result.mjs';
import { serve } from './server.mjs';
import { longest, mainThreadTasks } from './trace.mjs';

const LIMIT_MS = 50;

let server, browser;
before(async () => {
  const model = mkdtempSync(join(tmpdir(), 'globe-model-'));
  await listFiles(join(GOLDEN, 'untied'), model);
  server = await serve({ '/': join(WEB, 'site'), '/models/demo/': model });
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.close();
});

/** Fails on a task that kept the processor for too long; those that only waited for it are reported. */
function assertNoStall(t, what, tasks) {
  assert.ok(tasks.length > 20, `${what}: ${tasks.length} tasks seen`);
  const [cpu, wall] = [longest(tasks, 'cpuMs'), longest(tasks, 'wallMs')];
  t.diagnostic(`${what}: ${tasks.length} tasks, longest ${cpu.cpuMs.toFixed(1)} ms of the processor, ${wall.wallMs.toFixed(1)} ms by the clock`);
  assert.ok(cpu.cpuMs < LIMIT_MS, `${what}: a task of ${cpu.cpuMs} ms, ${cpu.begin} ms after the start`);
}

test('a stall is seen', async () => {
  const page = await newPage(browser, server);
  const tasks = await mainThreadTasks(browser, page, () => page.evaluate(() => {
    // Arithmetic until it has taken well over the limit, however busy the machine is.
    let [x, end] = [1, performance.now() + 1000];
    for (let i = 0; i < 4e8 && performance.now() < end; i++) x = (x * 16807) % 2147483647;
    return x;
  }));
  assert.ok(longest(tasks, 'cpuMs').cpuMs > LIMIT_MS);
  await page.context().close();
});

test('the page never stalls: opening, loading, locating and looking at a result', async (t) => {
  const page = await newPage(browser, server);
  const open = await mainThreadTasks(browser, page, async () => {
    await page.goto(server.url);
    await page.getByRole('button', { name: /Download and load/ }).waitFor();
    await page.locator('globe-map svg path.land').waitFor({ state: 'attached' });
  });
  assertNoStall(t, 'opening', open);

  const load = await mainThreadTasks(browser, page, async () => {
    await page.getByRole('button', { name: /Download and load/ }).click();
    await page.getByText(/Model ready/).waitFor({ timeout: 120_000 });
  });
  assertNoStall(t, 'loading', load);

  const locate = await mainThreadTasks(browser, page, async () => {
    await page.locator('globe-locator').evaluate((element) => Object.assign(element, { samples: 2, maxTokens: 48, temperature: 0.7 }));
    await page.locator('#file').setInputFiles(join(GOLDEN, 'images/photo.jpg'));
    await page.getByRole('button', { name: 'Locate', exact: true }).click();
    await page.locator('.headline').waitFor({ timeout: 120_000 });
  });
  assertNoStall(t, 'locating', locate);

  const look = await mainThreadTasks(browser, page, async () => {
    await page.locator('globe-locator').evaluate((element, result) => (element.result = result), EXAMPLE);
    for (const rank of ['2', '3', '1']) await page.locator(`[data-rank="${rank}"]`).click();
    await page.locator('globe-map svg').hover();
    for (let i = 0; i < 6; i++) await page.mouse.wheel(0, i < 3 ? -240 : 240);
    await page.mouse.down();
    for (let i = 0; i < 12; i++) await page.mouse.move(500 + 10 * i, 400 + 4 * i);
    await page.mouse.up();
  });
  assertNoStall(t, 'looking', look);
  assert.deepEqual(page.faults, []);
  await page.context().close();
});
