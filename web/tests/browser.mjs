// Debian's Chromium with WebGPU in software, and pages in it.

import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';

export const WEB = fileURLToPath(new URL('..', import.meta.url));
export const GOLDEN = join(WEB, '../tests/golden');
/** Chromium's software driver, for native programs. */
export const DRIVER = process.env.SWIFTSHADER ?? '/usr/lib/chromium/vk_swiftshader_icd.json';
export const ARTEFACTS = join(WEB, 'test-artefacts');

const QUIET = ['--no-sandbox', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const WEBGPU = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'];

/** More of the browser's flags, to find out what costs: `FLAGS="--enable-dawn-features=disable_robustness"`. */
const MORE = (process.env.FLAGS ?? '').split(' ').filter(Boolean);

const options = (webgpu, flags = []) => ({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: [...QUIET, ...(webgpu ? WEBGPU : ['--disable-features=WebGPU']), ...flags, ...MORE],
});

export const launch = ({ webgpu = true, flags = [] } = {}) => chromium.launch(options(webgpu, flags));

/** A browser that keeps its storage on disk, in `folder`: contexts of the other one keep it in memory. */
export const launchProfile = (folder) => chromium.launchPersistentContext(folder, options(true));

/** A page on `server` that fails the test on an error nobody caught. */
export async function newPage(browser, server, path = 'blank.html', options = {}) {
  return newPageIn(await browser.newContext(options), server, path);
}

/** The same in a context at hand. */
export async function newPageIn(context, server, path = 'blank.html') {
  const page = await context.newPage();
  page.faults = [];
  page.on('pageerror', (error) => page.faults.push(String(error)));
  await page.addInitScript(() => addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => {
    setTimeout(() => { throw new Error(`refused by ${violatedDirective}: ${blockedURI}`); });
  }));
  if (process.env.VERBOSE) page.on('console', (message) => console.log('[page]', message.text()));
  server.files['/blank.html'] ??= Buffer.from('<!doctype html><meta charset="utf-8"><title>test</title>');
  page.setDefaultTimeout(15_000);
  await page.goto(server.url + path);
  return page;
}

/** A worker that was ended is gone a moment later. */
export async function assertNoWorker(page, what) {
  for (let i = 0; i < 50 && page.workers().length > 0; i++) await page.waitForTimeout(100);
  assert.equal(page.workers().length, 0, `${what}: the worker ended, and its memory with it`);
}
