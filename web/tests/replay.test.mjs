// A step of an answer costs little more than its dispatches: the engine's loop against plain WebGPU calls that issue the
// same dispatches on the same buffers, in one run.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { GOLDEN, WEB, launch, newPage } from './browser.mjs';
import { captureGpu } from './capture-gpu.mjs';
import { serve } from './server.mjs';

const LIMIT = 1.3;
/** The least of a few rounds counts, of more while neighbours are loud. */
const [ROUNDS, MOST_ROUNDS] = [5, 20];
const LAYERS = 2; // of this golden
/** Lengths of an answer: what its start costs is in both. */
const [SHORT, LONG] = [12, 64];

let server, browser;
before(async () => {
  server = await serve({ '/dist/': join(WEB, 'dist'), '/golden/': GOLDEN });
  server.beforeWorker(`(${captureGpu})()`);
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.close();
});

for (const answers of [1, 8]) {
  test(`replay against raw WebGPU, ${answers} at once`, async (t) => {
    const page = await newPage(browser, server);
    page.setDefaultTimeout(300_000);
    await page.evaluate(async () => {
      const { Globe } = await import('/dist/globe.js');
      globalThis.globe = await Globe.load({ url: '/golden/window112/', device: 'gpu' });
      globalThis.photo = await (await fetch('/golden/images/photo.jpg')).blob();
    });
    const [worker] = page.workers();
    const once = (maxTokens) => page.evaluate(async ({ samples, maxTokens }) => {
      const { timings, answers } = await globe.locate(photo, { samples, batch: samples, maxTokens, seed: 7 });
      return { ms: timings.decode_ms, steps: Math.max(...answers.map(({ tokens }) => tokens)) };
    }, { samples: answers, maxTokens });
    await once(LONG); // compiles what is left to compile
    /** Of a length that was answered just before: steps are recorded and their pace is known. */
    const decode = async (maxTokens) => (await once(maxTokens), once(maxTokens));

    // Steps make no buffers: a longer answer makes them only for looks at its tokens, each of which follows a submission.
    const made = async (maxTokens) => {
      const counts = () => worker.evaluate(() => ({ buffers: captured.buffers, submitted: captured.submitted }));
      const [before, { steps }, after] = [await counts(), await once(maxTokens), await counts()];
      return { steps, buffers: after.buffers - before.buffers, submitted: after.submitted - before.submitted };
    };
    const [few, many] = [await made(SHORT), await made(LONG)];
    const more = (name) => many[name] - few[name];
    t.diagnostic(`${more('steps')} more steps: ${more('buffers')} more buffers, ${more('submitted')} more submissions`);
    assert.ok(more('steps') >= 40 && more('submitted') > 0, 'the longer answer is longer');
    assert.ok(more('submitted') <= more('steps'), 'at most one submission a step');
    assert.ok(more('buffers') <= more('steps') / 8, 'a step makes no buffer');

    const texts = await worker.evaluate(() => captured.texts);
    assert.equal(new Set(texts).size, texts.length, 'a kernel was compiled twice');

    let [short, long, raw, steps, dispatches, together] = [Infinity, Infinity, Infinity, 0, 0, 0];
    let engine = Infinity;
    for (let i = 0; i < MOST_ROUNDS && (i < ROUNDS || engine > LIMIT * raw); i++) {
      const [some, more] = [await decode(SHORT), await decode(LONG)];
      steps = more.steps - some.steps;
      [short, long] = [Math.min(short, some.ms), Math.min(long, more.ms)];
      const again = await worker.evaluate(async (times) => {
        const { dispatches, together } = captured.step();
        return { dispatches: dispatches.length, together, ms: await captured.again(dispatches, times, together) };
      }, steps);
      raw = Math.min(raw, again.ms / steps);
      ({ dispatches, together } = again);
      engine = (long - short) / steps;
    }
    t.diagnostic(`${dispatches} dispatches a step, ${together} steps a submission; ${engine.toFixed(2)} ms by the engine, ${raw.toFixed(2)} ms raw: ${(engine / raw).toFixed(2)}`);
    assert.ok(dispatches > LAYERS && dispatches <= 8 * LAYERS + 10, `${dispatches} dispatches in a step`);
    assert.ok(engine <= LIMIT * raw, `a step takes ${engine} ms, its dispatches ${raw}`);
    assert.deepEqual(page.faults, []);
    await page.context().close();
  });
}

test('a further layer costs at most eight dispatches a step', async (t) => {
  const dispatches = async (golden, answers) => {
    const page = await newPage(browser, server);
    page.setDefaultTimeout(300_000);
    await page.evaluate(async ({ golden, answers }) => {
      const { Globe } = await import('/dist/globe.js');
      const globe = await Globe.load({ url: `/golden/${golden}/`, device: 'gpu' });
      const photo = await (await fetch('/golden/images/small_40x30.png')).blob();
      await globe.locate(photo, { samples: answers, batch: answers, maxTokens: 40, seed: 7 });
    }, { golden, answers });
    const count = await page.workers()[0].evaluate(() => captured.step().dispatches.length);
    await page.context().close();
    return count;
  };
  for (const answers of [1, 8, 20]) {
    const [few, many] = [await dispatches('window112', answers), await dispatches('deep', answers)];
    t.diagnostic(`${answers} at once: ${few} with two layers, ${many} with six`);
    assert.ok(few > LAYERS && many > few && many - few <= 4 * 8, `${few} and ${many}`);
  }
});
