// A static server whose faults a test can choose.

import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';

const TYPES = {
  '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.json': 'application/json',
  '.wasm': 'application/wasm', '.png': 'image/png', '.jpg': 'image/jpeg', '.svg': 'image/svg+xml',
};

/**
 * Serves `mounts` ({ '/path/': folder }). `requests` lists what was asked; `faults` maps a path to a function
 * `(bytes, request, response)` that may return other bytes, or answer by itself and return null.
 */
export async function serve(mounts, headers = {}) {
  const state = { requests: [], faults: {}, files: {}, headers };
  const server = createServer((request, response) => void answer(mounts, state, request, response));
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address();
  return Object.assign(state, {
    url: `http://localhost:${port}/`,
    /** Puts `script` before the engine in the first `count` workers: a call from the page could come too late. */
    beforeWorker(script, count = Infinity) {
      let started = 0;
      const patched = (bytes) => (started++ < count ? Buffer.concat([Buffer.from(`${script};\n`), bytes]) : bytes);
      state.faults['/dist/worker.js'] = state.faults['/globe/worker.js'] = patched; // the package's, and the site's
    },
    close: () => { server.closeAllConnections(); return new Promise((done) => server.close(done)); },
  });
}

async function answer(mounts, state, request, response) {
  const path = decodeURIComponent(new URL(request.url, 'http://x').pathname);
  state.requests.push({ path, method: request.method, range: request.headers.range });
  let bytes = state.files[path] ?? (await find(mounts, path));
  const fault = state.faults[path];
  if (fault) bytes = fault(bytes, request, response);
  if (bytes === null && (response.headersSent || response.destroyed)) return;
  if (bytes === null) {
    response.writeHead(404, { 'content-type': 'text/plain' }).end('not found');
    return;
  }
  const name = path.endsWith('/') ? '.html' : extname(path);
  const headers = { 'content-type': TYPES[name] ?? 'application/octet-stream', 'accept-ranges': 'bytes', 'cache-control': 'no-cache', ...state.headers };
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
  if (range) {
    const end = range[2] ? Math.min(Number(range[2]) + 1, bytes.length) : bytes.length;
    headers['content-range'] = `bytes ${range[1]}-${end - 1}/${bytes.length}`;
    bytes = bytes.subarray(Number(range[1]), end);
  }
  response.writeHead(range ? 206 : 200, { ...headers, 'content-length': bytes.length });
  response.end(request.method === 'HEAD' ? undefined : bytes);
}

async function find(mounts, path) {
  const [mount, folder] = Object.entries(mounts)
    .filter(([prefix]) => path.startsWith(prefix))
    .sort(([a], [b]) => b.length - a.length)[0] ?? [];
  if (!mount) return null;
  const file = normalize(join(folder, path.slice(mount.length)));
  if (!file.startsWith(normalize(folder))) return null;
  return readFile(path.endsWith('/') ? join(file, 'index.html') : file).catch(() => null);
}
