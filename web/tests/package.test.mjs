// What others build on: dependencies, entry points, types and the description of the element.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { GOLDEN, WEB, launch, newPage } from './browser.mjs';
import { serve } from './server.mjs';

const read = (path) => readFileSync(join(WEB, path), 'utf8');
const described = JSON.parse(read('custom-elements.json')).modules[0].declarations[0];

let server, browser;
before(async () => {
  server = await serve({ '/dist/': join(WEB, 'dist'), '/golden/': GOLDEN });
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.close();
});

test('lit, d3-geo and topojson-client are the only dependencies, and the bundles name no other module', () => {
  const { dependencies, exports, files } = JSON.parse(read('package.json'));
  assert.deepEqual(Object.keys(dependencies).sort(), ['d3-geo', 'lit', 'topojson-client']);
  for (const entry of ['.', './element']) {
    for (const path of Object.values(exports[entry])) assert.ok(existsSync(join(WEB, path)), `${path} is built`);
  }
  for (const name of files) assert.ok(existsSync(join(WEB, name.replace('!', ''))), name);
  for (const name of readdirSync(join(WEB, 'dist')).filter((name) => name.endsWith('.js'))) {
    const imported = [...read(`dist/${name}`).matchAll(/(?:\bfrom|\bimport)\s*\(?["']([^"']+)["']/g)].map(([, module]) => module);
    assert.deepEqual(imported.filter((module) => !module.startsWith('./')), [], `${name} is whole by itself`);
  }
});

test('types compile without any others, strictly', () => {
  const folder = mkdtempSync(join(tmpdir(), 'globe-consumer-'));
  const source = `import { Globe, GlobeError, toGeoJson, type LocateResult, type Probe } from '${join(WEB, 'dist/types/index.js')}';
const globe: Globe = await Globe.load({ url: '/model/', onProgress: ({ stage, done }) => console.log(stage, done) });
const probe: Probe = await Globe.probe('/model/');
const result: LocateResult = await globe.locate(new Blob(), { samples: 2, onToken: (text: string) => console.log(text) });
const [lon, lat]: [number, number] = toGeoJson(result).features[0]!.geometry.coordinates;
console.log(probe.adapter?.description, lon, lat, new GlobeError('Image', '').code);
`;
  writeFileSync(join(folder, 'consumer.mts'), source);
  const options = ['--strict', '--noEmit', '--target', 'es2022', '--module', 'esnext', '--moduleResolution', 'bundler', '--lib', 'es2023,dom', '--types', ''];
  const { status, stdout } = spawnSync(join(WEB, 'node_modules/.bin/tsc'), [...options, join(folder, 'consumer.mts')], { cwd: folder, encoding: 'utf8' });
  rmSync(folder, { recursive: true });
  assert.equal(status, 0, stdout);
});

test('custom-elements.json describes the element as it is', async () => {
  const page = await newPage(browser, server);
  const { attributes, members, properties } = await page.evaluate(async (members) => {
    await import('/dist/element.js');
    const Element = customElements.get('globe-locator');
    const element = document.body.appendChild(document.createElement('globe-locator'));
    await element.updateComplete;
    const properties = [...Element.elementProperties].flatMap(([name, { attribute, state }]) => (state ? [] : [[name, attribute, element[name]]]));
    return { attributes: Element.observedAttributes, properties, members: members.map((name) => [name, name in element ? typeof element[name] : 'absent']) };
  }, described.members.map(({ name }) => name));
  assert.deepEqual(described.attributes.map(({ name }) => name).sort(), [...attributes].sort());
  for (const [i, [name, type]] of members.entries()) {
    assert.equal(type === 'function', described.members[i].kind === 'method', name);
    assert.notEqual(type, 'absent', name);
  }
  const fields = described.members.filter(({ kind }) => kind === 'field');
  assert.deepEqual(fields.map(({ name }) => name).sort(), properties.map(([name]) => name).sort());
  for (const [name, attribute, value] of properties.filter(([, attribute]) => attribute !== false)) {
    const { default: written } = fields.find((field) => field.name === name);
    const ofAttribute = described.attributes.find(({ fieldName }) => fieldName === name);
    assert.equal(ofAttribute?.name, typeof attribute === 'string' ? attribute : name.toLowerCase(), name);
    assert.equal(ofAttribute.default, written, name);
    assert.equal(String(value), (written ?? '').replaceAll("'", ''), `the default of ${name}`);
  }
  const source = ['globe-locator', 'model-panel'].map((name) => read(`ts/element/${name}.ts`)).join('');
  const told = new Set([...source.matchAll(/this\.tell\('([\w-]+)'/g)].map(([, name]) => name));
  assert.deepEqual(described.events.map(({ name }) => name).sort(), [...told].sort());
  const parts = new Set([...source.matchAll(/part="(\w+)"/g)].map(([, name]) => name));
  assert.deepEqual(described.cssParts.map(({ name }) => name).sort(), [...parts].sort());
  await page.context().close();
});

test('one call by an address, and one with a word for every token', async () => {
  const page = await newPage(browser, server);
  const { streamed, text } = await page.evaluate(async () => {
    const { Globe } = await import('/dist/globe.js');
    const globe = await Globe.load('/golden/untied/');
    let streamed = '';
    const photo = await (await fetch('/golden/images/small_40x30.png')).blob();
    const { answers } = await globe.locate(photo, { samples: 1, maxTokens: 8, onToken: (text) => (streamed += text) });
    globe.dispose();
    return { streamed, text: answers[0].text };
  });
  assert.ok(text.length > 0);
  assert.ok(text.startsWith(streamed) && streamed.length > 0, `${streamed} of ${text}`);
  assert.deepEqual(page.faults, []);
  await page.context().close();
});
