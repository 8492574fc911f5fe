// Service worker: the page without network, and sealed mode, in which nothing reaches the network.

/// <reference lib="webworker" />
export type {};
declare const self: ServiceWorkerGlobalScope;

/** Filled in when the site is put together: every file of the page, and a version made of their digests. */
const SHELL: string[] = '__SHELL__'.split('|');
const VERSION = '__VERSION__';

const CACHE = `globe-shell-${VERSION}`;
const STATE = 'globe-state';
const WATCH = '/__globe_watch__';

/** Messages of the page: start counting, or seal. */
type Message = { watch: true } | { seal: boolean };

/** Requests for the network since the page asked for a count, and those refused. */
interface Watch {
  sealed: boolean;
  requests: number;
  refused: number;
}

self.addEventListener('install', (event) => {
  const fill = async () => {
    const cache = await caches.open(CACHE);
    await cache.addAll(SHELL.map((path) => new Request(path, { cache: 'no-cache' })));
    await self.skipWaiting();
  };
  event.waitUntil(fill());
});

self.addEventListener('activate', (event) => {
  const tidy = async () => {
    for (const name of await caches.keys()) {
      if (name.startsWith('globe-shell-') && name !== CACHE) await caches.delete(name);
    }
    await self.clients.claim();
  };
  event.waitUntil(tidy());
});

self.addEventListener('message', (event) => {
  const message = event.data as Message;
  const change = (watch: Watch | null): Watch =>
    'seal' in message ? { ...(watch ?? FRESH), sealed: message.seal, refused: 0 } : { ...FRESH, sealed: watch?.sealed ?? false };
  event.waitUntil(update(change));
});

self.addEventListener('fetch', (event) => {
  event.respondWith(answer(event.request));
});

const FRESH: Watch = { sealed: false, requests: 0, refused: 0 };

async function answer(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  const navigates = request.mode === 'navigate';
  // Opening a page starts a new load, which may need the network.
  if (navigates) await update(() => null);
  const kept = request.method === 'GET' ? await cache.match(request, { ignoreSearch: navigates }) : undefined;
  if (kept) return kept;
  if (navigates) return fetch(request).catch(async () => (await cache.match(self.registration.scope)) ?? Response.error());
  const count = (watch: Watch) => (watch.sealed ? { ...watch, refused: watch.refused + 1 } : { ...watch, requests: watch.requests + 1 });
  const watch = await update((watch) => watch && count(watch));
  return watch?.sealed ? Response.error() : fetch(request);
}

/** Changes run one after the other. A stopped service worker forgets variables, so the state is stored. */
let last: Promise<unknown> = Promise.resolve();
function update(change: (watch: Watch | null) => Watch | null): Promise<Watch | null> {
  const turn = last.then(async () => {
    const state = await caches.open(STATE);
    const before = await state.match(WATCH);
    const old = before ? ((await before.json()) as Watch) : null;
    const watch = change(old);
    if (watch) await state.put(WATCH, new Response(JSON.stringify(watch)));
    else if (old) await state.delete(WATCH);
    if (watch || old) await report(watch);
    return watch;
  });
  last = turn.catch(() => undefined);
  return turn;
}

async function report(watch: Watch | null): Promise<void> {
  for (const client of await self.clients.matchAll({ includeUncontrolled: true })) client.postMessage({ globeWatch: watch });
}
