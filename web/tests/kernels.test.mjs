// The kernel tests of tests/it in the tab: each kernel as Tint compiles it against its oracle in plain Rust.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { WEB, launch, newPage } from './browser.mjs';
import { serve } from './server.mjs';

const FOLDER = join(WEB, 'pkg/kernel-tests');
const MODULE = 'globe_browser_tests.js';
const NATIVE = join(WEB, '../tests/it');
const SHADERS = join(WEB, '../shaders');

const bindings = readFileSync(join(FOLDER, MODULE), 'utf8');
const exported = [...bindings.matchAll(/^export async function ((\w+?)__(\w+))\(/gm)].map(([, name, file, title]) => ({ name, file, title }));

const server = await serve({ '/kernel-tests/': FOLDER });
const browser = await launch();
let page = null;
after(async () => {
  await browser.close();
  await server.close();
});

/** A page with the module started; it asks for subgroups where the adapter has them, as the engine's worker does. */
async function open() {
  const page = await newPage(browser, server);
  await page.evaluate(async (module) => {
    const { requestDevice } = GPUAdapter.prototype;
    GPUAdapter.prototype.requestDevice = async function (descriptor) {
      if (!this.features.has('subgroups')) throw new Error('the browser has no subgroups, so kernels that use them would not be tested');
      const device = await requestDevice.call(this, { ...descriptor, requiredFeatures: [...(descriptor?.requiredFeatures ?? []), 'subgroups'] });
      device.addEventListener('uncapturederror', ({ error }) => { globalThis.refused ??= error.message; });
      return device;
    };
    globalThis.kernels = await import(module);
    await kernels.default({ module_or_path: module.replace('.js', '_bg.wasm') });
  }, `/kernel-tests/${MODULE}`);
  return page;
}

/** Why the test failed, or null. */
const run = (page, name) =>
  page.evaluate(async (name) => {
    const failed = await kernels[name]().then(() => null, (error) => kernels.lastPanic() ?? String(error));
    return globalThis.refused ?? failed;
  }, name);

test('every kernel with native tests is tested in the browser', () => {
  const kernels = readdirSync(SHADERS).filter((name) => name.endsWith('.wgsl')).map((name) => name.slice(0, -5));
  const native = kernels.filter((kernel) => readdirSync(NATIVE).includes(`${kernel}.rs`));
  assert.ok(native.length > 20, `${native.length} kernels with native tests in ${NATIVE}`);
  assert.deepEqual(native.filter((kernel) => !exported.some(({ file }) => file === kernel)), []);
  for (const file of new Set(exported.map(({ file }) => file))) {
    const tests = readFileSync(join(NATIVE, `${file}.rs`), 'utf8').match(/^#\[test\]$/gm);
    assert.equal(exported.filter((test) => test.file === file).length, tests.length, `tests of ${file}.rs`);
  }
});

for (const { name, file, title } of exported) {
  test(`${file}: ${title.replaceAll('_', ' ')}`, async () => {
    page ??= await open();
    const failed = await run(page, name);
    if (failed) {
      // After a panic the module's memory is in an unknown state.
      await page.context().close();
      page = null;
    }
    assert.equal(failed, null);
  });
}
