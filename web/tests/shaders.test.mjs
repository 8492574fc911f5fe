// Every WGSL program through Tint. That limits are kept is checked with naga, in the tests of the shaders.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { WEB, launch, newPage } from './browser.mjs';
import { serve } from './server.mjs';

const FOLDER = join(WEB, 'pkg/programs');
const SHADERS = join(WEB, '../shaders');

let server, browser;
before(async () => {
  server = await serve({});
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.close();
});

/** Kernels that browsers cannot run: they have no matrices held by subgroups. */
const NATIVE_ONLY = ['packed_linear_cooperative'];

/** What Tint says against each program. Without 16-bit floats, all else of a program that uses them is still compiled. */
function faultsOf(page, programs) {
  return page.evaluate(async (programs) => {
    const adapter = await navigator.gpu.requestAdapter();
    const subgroups = adapter.features.has('subgroups');
    const f16 = adapter.features.has('shader-f16');
    const features = [...(subgroups ? ['subgroups'] : []), ...(f16 ? ['shader-f16'] : [])];
    const device = await adapter.requestDevice({ requiredFeatures: features });
    const widened = (source) => source.replace('enable f16;', '').replace(/\bf16\b/g, 'f32');
    const faults = [];
    for (const { name, source } of programs) {
      const code = f16 ? source : widened(source);
      device.pushErrorScope('validation');
      const { messages } = await device.createShaderModule({ label: name, code }).getCompilationInfo();
      const error = await device.popErrorScope();
      const errors = messages.filter(({ type }) => type === 'error');
      faults.push(...errors.map(({ lineNum, message }) => `${name}: line ${lineNum}: ${message}`));
      if (error && errors.length === 0) faults.push(`${name}: ${error.message}`);
    }
    return { faults, subgroups };
  }, programs);
}

test('every program compiles in the browser', async () => {
  const files = readdirSync(FOLDER);
  const kernels = readdirSync(SHADERS).filter((name) => name.endsWith('.wgsl')).map((name) => name.slice(0, -5));
  assert.ok(kernels.length > 0, `no shaders in ${SHADERS}`);
  assert.deepEqual(kernels.filter((kernel) => !files.some((file) => file.startsWith(kernel))), NATIVE_ONLY, 'kernels without a program');
  const programs = files.map((file) => ({ name: file, source: readFileSync(join(FOLDER, file), 'utf8') }));
  const page = await newPage(browser, server);
  const { faults, subgroups } = await faultsOf(page, programs);
  assert.deepEqual(faults, []);
  assert.ok(subgroups, 'the browser has no subgroups, so kernels that use them were not compiled');
  await page.context().close();
});

test('a program that Tint refuses is reported with its line', async () => {
  const page = await newPage(browser, server);
  const wrong = '@compute @workgroup_size(64)\nfn main() { let x: f32 = 1u; }';
  const { faults } = await faultsOf(page, [{ name: 'wrong', source: wrong }]);
  assert.match(faults[0], /^wrong: line 2: /);
  assert.equal(faults.length, 1);
  await page.context().close();
});
