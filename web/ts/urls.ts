// Where the parts of this package lie: beside its modules, on any static host.
//
// Each `new URL('…', import.meta.url)` stands as bundlers know it, so that they carry the file along.

/** Starts the worker. */
export function newWorker(): Worker {
  return new Worker(new URL(/* @vite-ignore */ './worker.js', import.meta.url), { type: 'module', name: 'globe' });
}

export const wasmUrl = (): string => new URL(/* @vite-ignore */ './globe_web_bg.wasm', import.meta.url).href;
export const gazetteerUrl = (): string => new URL(/* @vite-ignore */ './gazetteer.gaz', import.meta.url).href;
export const mapUrl = (): string => new URL(/* @vite-ignore */ './countries-50m.json', import.meta.url).href;

/** A folder's address, complete and with a slash at its end. */
export function folderUrl(url: string): string {
  const complete = new URL(url, document.baseURI);
  if (!complete.pathname.endsWith('/')) complete.pathname += '/';
  return complete.href;
}
