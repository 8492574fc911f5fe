// Service worker: the page without network, and sealed mode, in which nothing reaches the network.

/// <reference lib="webworker" />
export type {};
declare const self: ServiceWorkerGlobalScope;

/** Filled in when the site is put together: every file of the page, and a version made of their digests. */
const SHELL: string[] = JSON.parse('__SHELL__') as string[];
const VERSION = '__VERSION__';

const CACHE = `globe-shell-${VERSION}`;
const STATE = 'globe-state';
const SEAL = '/__globe_seal__';

/** Messages of the page. */
type Message = { seal: boolean } | { status: true };

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
  const act = async () => {
    if ('seal' in message) await setSeal(message.seal ? 0 : null);
    await report();
  };
  event.waitUntil(act());
});

self.addEventListener('fetch', (event) => {
  event.respondWith(answer(event.request));
});

async function answer(request: Request): Promise<Response> {
  // Opening a page starts a new load, which may need the network.
  if (request.mode === 'navigate') {
    if ((await refused()) !== null) {
      await setSeal(null);
      await report();
    }
    return fromShell(request, () => fetch(request).catch(() => offlinePage()));
  }
  return fromShell(request, async () => {
    const count = await refused();
    if (count === null) return fetch(request);
    await setSeal(count + 1);
    await report();
    return Response.error();
  });
}

async function fromShell(request: Request, otherwise: () => Promise<Response>): Promise<Response> {
  const cache = await caches.open(CACHE);
  const kept = request.method === 'GET' ? await cache.match(request, { ignoreSearch: request.mode === 'navigate' }) : undefined;
  return kept ?? otherwise();
}

async function offlinePage(): Promise<Response> {
  const cache = await caches.open(CACHE);
  return (await cache.match(new URL('./', self.registration.scope).href)) ?? Response.error();
}

/** Requests refused since the seal, or null when not sealed. A stopped service worker forgets variables. */
async function refused(): Promise<number | null> {
  const kept = await (await caches.open(STATE)).match(SEAL);
  return kept ? Number(await kept.text()) : null;
}

async function setSeal(count: number | null): Promise<void> {
  const state = await caches.open(STATE);
  if (count === null) await state.delete(SEAL);
  else await state.put(SEAL, new Response(String(count)));
}

async function report(): Promise<void> {
  const count = await refused();
  const status = { globeSealed: count !== null, refused: count ?? 0 };
  for (const client of await self.clients.matchAll({ includeUncontrolled: true })) client.postMessage(status);
}
