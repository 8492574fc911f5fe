// What each dispatch of a decoding step costs in the tab: those of a real step, each issued many times more.
//
// node scripts/dispatches.mjs [MODEL_FOLDER [AT_ONCE]]   (after cargo xtask web; FLAGS has more flags of the browser)
// With PROGRAMS=DIR, files there take the place of the programs of the same names in pkg/programs.

import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GOLDEN, WEB, launch, newPage } from '../tests/browser.mjs';
import { captureGpu } from '../tests/capture-gpu.mjs';
import { treeMs } from '../tests/processor.mjs';
import { serve } from '../tests/server.mjs';
import { listFiles } from './list-files.mjs';

const TIMES = Number(process.env.TIMES ?? 200);
/** The least of these rounds counts: neighbours only add. */
const ROUNDS = 3;

const model = process.argv[2] ?? join(GOLDEN, 'window112');
const atOnce = Number(process.argv[3] ?? 1);

/** Runs in the worker: other programs in place of the engine's own. */
function replacePrograms(others) {
  const { createShaderModule } = GPUDevice.prototype;
  const plain = (code) => code.replace(/^enable .*\n/gm, '').trim();
  GPUDevice.prototype.createShaderModule = function (descriptor) {
    const { code } = others.find(({ instead }) => plain(instead) === plain(descriptor.code)) ?? {};
    const enabled = (code ?? descriptor.code).match(/^enable .*\n/gm)?.join('') ?? '';
    return createShaderModule.call(this, code ? { ...descriptor, code: enabled + plain(code) } : descriptor);
  };
}

const programs = process.env.PROGRAMS;
const others = (programs ? readdirSync(programs) : []).map((name) => ({
  instead: readFileSync(join(WEB, 'pkg/programs', name), 'utf8'), code: readFileSync(join(programs, name), 'utf8'),
}));
const served = existsSync(join(model, 'manifest.json')) ? model : mkdtempSync(join(tmpdir(), 'globe-model-'));
if (served !== model) await listFiles(model, served);
const server = await serve({ '/dist/': join(WEB, 'dist'), '/model/': served, '/golden/': GOLDEN });
server.beforeWorker(`(${captureGpu})();\n(${replacePrograms})(${JSON.stringify(others)})`);
const browser = await launch();
try {
  const page = await newPage(browser, server);
  page.setDefaultTimeout(600_000);
  const { text, tokens, ms } = await page.evaluate(async (samples) => {
    const { Globe } = await import('/dist/globe.js');
    const globe = (globalThis.globe = await Globe.load({ url: '/model/', device: 'gpu' }));
    const image = await (await fetch('/golden/images/photo.jpg')).blob();
    const { answers, timings } = await globe.locate(image, { samples, batch: samples, maxTokens: 32, seed: 7 });
    return { text: answers[0].text, tokens: answers[0].tokens, ms: timings.decode_ms };
  }, atOnce);
  console.log(`${tokens} tokens in ${ms.toFixed(0)} ms: ${JSON.stringify(text.slice(0, 60))}`);
  const [worker] = page.workers();
  const step = await worker.evaluate(() => {
    captured.measured = captured.step().dispatches;
    return captured.measured.map(({ program, counts }) => ({ program, counts }));
  });
  const cost = async (from, to) => {
    const best = { cpu: Infinity, clock: Infinity };
    for (let round = 0; round < ROUNDS; round++) {
      const before = treeMs();
      const clock = await worker.evaluate(([from, to, times]) => captured.again(captured.measured.slice(from, to), times), [from, to, TIMES]);
      best.cpu = Math.min(best.cpu, (treeMs() - before) / TIMES);
      best.clock = Math.min(best.clock, clock / TIMES);
    }
    return best;
  };
  const rows = [];
  for (const [i, { program, counts }] of step.entries()) {
    const { cpu, clock } = await cost(i, i + 1);
    rows.push({ program: program.slice(3, 50), groups: counts.join(' x '), 'processor ms': cpu.toFixed(2), 'clock ms': clock.toFixed(2) });
  }
  console.table(rows);
  const { cpu, clock } = await cost(0, step.length);
  console.log(`the whole step: ${cpu.toFixed(2)} ms of processor time, ${clock.toFixed(2)} by the clock`);
} finally {
  await browser.close();
  await server.close();
  if (served !== model) rmSync(served, { recursive: true, force: true });
}
