import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

export default defineConfig({
  plugins: [react()],
  // Here the package lies two folders up; in a project of yours npm puts it into node_modules, and this goes.
  resolve: { alias: { 'globe-locator/element': new URL('../../dist/element.js', import.meta.url).pathname } },
  build: { target: 'es2022', assetsInlineLimit: 0 },
  worker: { format: 'es' },
});
