// Three bundles: the page's modules, the worker and the service worker. Each is whole by itself, so that any
// static host, and any bundler that knows `new URL('…', import.meta.url)`, can carry them.

import { copyFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { defineConfig, type Plugin } from 'vite';

const here = import.meta.dirname;
const ENTRIES: Record<string, Record<string, string>> = {
  page: { globe: 'ts/index.ts', element: 'ts/element/globe-locator.ts' },
  worker: { worker: 'ts/worker.ts' },
  sw: { sw: 'ts/sw.ts' },
};

const ASSETS = {
  'pkg/globe_web_bg.wasm': 'globe_web_bg.wasm',
  '../crates/globe-geo/data/full.gaz': 'gazetteer.gaz',
  '../crates/globe-geo/NOTICE': 'NOTICE',
  'node_modules/world-atlas/countries-50m.json': 'countries-50m.json',
};

/** Addresses stay as written: the worker gets its module from the page, and bundlers find the rest. */
function addresses(): Plugin {
  return {
    name: 'addresses',
    enforce: 'pre',
    transform(code, id) {
      if (!id.endsWith('/pkg/globe_web.js')) return null;
      return code.replace(/new URL\('globe_web_bg\.wasm', import\.meta\.url\)/g, 'undefined');
    },
    generateBundle(_, bundle) {
      for (const file of Object.values(bundle)) {
        if (file.type === 'chunk') file.code = file.code.replace(/\/\*\s*@vite-ignore\s*\*\/\s*/g, '');
      }
    },
    closeBundle() {
      for (const [from, to] of Object.entries(ASSETS)) copyFileSync(resolve(here, from), resolve(here, 'dist', to));
    },
  };
}

export default defineConfig(({ mode }) => ({
  plugins: [addresses()],
  build: {
    target: 'es2022',
    outDir: 'dist',
    emptyOutDir: mode === 'page',
    minify: true,
    lib: { entry: ENTRIES[mode] ?? {}, formats: ['es'] },
    rollupOptions: { output: { entryFileNames: '[name].js', chunkFileNames: 'shared-[hash].js' } },
  },
}));
