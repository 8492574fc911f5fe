// The tab against the native binary on one machine: start-up, and tokens a second of the same answers. Both run on
// Chromium's software driver with the same kernels; processor time counts neighbours least.
//
// GLOBE=target/debug/globe node scripts/measure.mjs [MODEL_FOLDER]   (after cargo xtask web; TURNS and TOKENS of an answer
// may be given)

import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DRIVER, GOLDEN, WEB, launch, newPage } from '../tests/browser.mjs';
import { nativeIn } from '../tests/native.mjs';
import { childrenMs, treeMs } from '../tests/processor.mjs';
import { serve } from '../tests/server.mjs';
import { listFiles } from './list-files.mjs';

const RUNS = 3;
const STARTS = 5;
/** Tab and native take turns, so that a change of the machine meets both. None: only the starts are measured. */
const TURNS = Number(process.env.TURNS ?? 3);
const PHOTO = 'images/photo.jpg';
/** Each pair: answers, and how many of them at once. */
const SHAPES = [[4, 1], [8, 8]];
const MAX_TOKENS = Number(process.env.TOKENS ?? 64);

const median = (numbers) => numbers.sort((a, b) => a - b)[Math.floor(numbers.length / 2)];
const speed = (results) => median(results.map(({ timings }) => (1000 * timings.answer_tokens) / timings.decode_ms));
const tokens = (results) => results.reduce((sum, { timings }) => sum + timings.answer_tokens, 0);

async function interactive(browser, server) {
  const times = [];
  for (let i = 0; i < RUNS; i++) {
    const page = await newPage(browser, server, '');
    await page.getByRole('button', { name: /Download and load|Load the stored model/ }).waitFor();
    times.push(await page.evaluate(() => performance.now()));
    await page.context().close();
  }
  return median(times);
}

/** Loads in one browser profile: by the network, then from its storage. */
async function load(page) {
  return page.evaluate(async (starts) => {
    const { Globe } = await import('/globe/globe.js');
    const fetched = await Globe.load({ url: '/models/demo/', device: 'gpu' });
    fetched.dispose();
    const early = await Globe.load({ url: '/models/demo/', device: 'gpu', warm: false });
    early.dispose();
    const stored = [];
    for (let i = 0; i < starts; i++) {
      globalThis.globe?.dispose();
      globalThis.globe = await Globe.load({ url: '/models/demo/', device: 'gpu' });
      stored.push(globe.info.loadMs);
    }
    const { adapter, kernels } = globe.info;
    return { fetched: fetched.info.loadMs, early: early.info.loadMs, stored, adapter, kernels };
  }, STARTS);
}

async function inTab(page, samples, batch) {
  const locate = (runs) => page.evaluate(async ({ runs, photo, options }) => {
    const image = await (await fetch(`/golden/${photo}`)).blob();
    const results = [];
    for (let i = 0; i < runs; i++) results.push(await globe.locate(image, options));
    return results;
  }, { runs, photo: PHOTO, options: { samples, batch, maxTokens: MAX_TOKENS, seed: 7 } });
  await locate(1); // compiles what is left to compile
  const before = treeMs();
  const results = await locate(RUNS);
  return { ...told(results), cpu: (treeMs() - before) / tokens(results) };
}

/** One photo, then more of them: what the start costs is in both. */
async function outside(model, kernels, samples, batch) {
  const run = async (photos) => {
    const options = { samples, batch, 'max-tokens': MAX_TOKENS, seed: 7, device: 'software', format: 'json' };
    const words = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
    const variables = { VK_DRIVER_FILES: DRIVER, GLOBE_LINEAR: kernels };
    const before = childrenMs();
    const printed = await nativeIn(variables, 'locate', ...Array(photos).fill(join(GOLDEN, PHOTO)), '--model', model, ...words, '--quiet');
    return { results: [JSON.parse(printed)].flat(), cpu: childrenMs() - before };
  };
  const [one, more] = [await run(1), await run(1 + RUNS)];
  const results = more.results.slice(1);
  return { ...told(results), cpu: (more.cpu - one.cpu) / tokens(results) };
}

const told = (results) => ({ speed: speed(results), texts: results[0].answers.map(({ text }) => text) });

const model = process.argv[2] ?? join(GOLDEN, 'window112');
const served = existsSync(join(model, 'manifest.json')) ? model : mkdtempSync(join(tmpdir(), 'globe-model-'));
if (served !== model) await listFiles(model, served);
const server = await serve({ '/': join(WEB, 'site'), '/models/demo/': served, '/golden/': GOLDEN });
const browser = await launch();
try {
  console.log(`page interactive after ${Math.round(await interactive(browser, server))} ms`);
  const page = await newPage(browser, server);
  const { fetched, early, stored, adapter, kernels } = await load(page);
  console.log(`ready after ${Math.round(fetched)} ms by the network, from storage after ${Math.round(early)} ms before kernels are compiled, with them after ${stored.map(Math.round).join(', ')} ms (${adapter}, kernels ${kernels})`);
  for (const [samples, batch] of TURNS > 0 ? SHAPES : []) {
    const turns = [];
    for (let i = 0; i < TURNS; i++) {
      turns.push({ tab: await inTab(page, samples, batch), outer: await outside(model, kernels, samples, batch) });
    }
    const equal = turns.every(({ tab, outer }) => JSON.stringify(tab.texts) === JSON.stringify(outer.texts));
    const both = (name, digits) => ['tab', 'outer'].map((side) => median(turns.map((turn) => turn[side][name])).toFixed(digits));
    const ratios = (ratio) => turns.map(ratio).map((r) => r.toFixed(2)).join(', ');
    console.log(`${samples} answers, ${batch} at once, texts ${equal ? 'equal' : 'DIFFER'}, medians of ${TURNS} turns:`);
    console.log(`  tokens/s in the tab and native: ${both('speed', 1).join(', ')}; ratio of each turn ${ratios(({ tab, outer }) => tab.speed / outer.speed)}`);
    console.log(`  processor ms a token: ${both('cpu', 2).join(', ')}; ratio of each turn ${ratios(({ tab, outer }) => outer.cpu / tab.cpu)}`);
  }
} finally {
  await browser.close();
  await server.close();
  if (served !== model) rmSync(served, { recursive: true, force: true });
}
