// Service worker: the page without network, and sealed mode, in which nothing reaches the network.

/// <reference lib="webworker" />
import { SEALED } from './sealed.js';

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

/** By page: the id of its client. One that is gone, loaded anew or put aside by the browser has none; a page that comes back says again that it is sealed. */
type Watches = Record<string, Watch>;

self.addEventListener('install', (event) => {
  const fill = async () => {
    const cache = await caches.open(CACHE);
    await cache.addAll(SHELL.map((path) => new Request(path, { cache: 'no-cache' })));
    // A page and the files that it still asks for are of one version: the next one waits until no page is left.
    if (!self.registration.active) await self.skipWaiting();
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
  const page = (event.source as Client).id;
  event.waitUntil(
    update((watches) => {
      const old = watches[page] ?? FRESH;
      watches[page] = 'seal' in message ? { ...old, sealed: message.seal, refused: 0 } : { ...FRESH, sealed: old.sealed };
    }),
  );
});

self.addEventListener('fetch', (event) => {
  event.respondWith(answer(event.request, event.clientId));
});

const FRESH: Watch = { sealed: false, requests: 0, refused: 0 };

/** For a window. It names an icon: browsers ask for /favicon.ico otherwise, and no service worker hears of that. */
const REFUSAL = '<!doctype html><html lang="en"><title>Sealed</title><link rel="icon" href="data:,"><p>This site is sealed in one of its tabs, so nothing is fetched for this one. Unseal or close that tab, then load this page again.</p></html>';

async function answer(request: Request, client: string): Promise<Response> {
  const cache = await caches.open(CACHE);
  const navigates = request.destination === 'document';
  const kept = request.method === 'GET' ? await cache.match(request, { ignoreSearch: navigates }) : undefined;
  if (kept) return kept;
  let [refused, fromKnownPage] = [false, false];
  await update((watches, pages) => {
    // To which page a worker, a frame or a new window belongs is not said, so their requests count for every page.
    fromKnownPage = !navigates && pages.get(client)?.frameType === 'top-level';
    const asking = fromKnownPage ? [client] : Object.keys(watches);
    refused = asking.some((page) => watches[page]?.sealed);
    for (const page of asking) {
      const watch = watches[page];
      if (watch) watches[page] = refused ? { ...watch, refused: watch.refused + 1 } : { ...watch, requests: watch.requests + 1 };
    }
  });
  if (!refused) return navigates ? fetch(request).catch(async () => (await cache.match(self.registration.scope)) ?? Response.error()) : fetch(request);
  if (navigates) return new Response(REFUSAL, { status: 403, headers: { 'content-type': 'text/html; charset=utf-8' } });
  // It may be the worker of another page, whose visitor would look for a fault of the connection.
  return fromKnownPage ? Response.error() : new Response(null, { status: 403, headers: { [SEALED]: '1' } });
}

/** Changes run one after the other. A stopped service worker forgets variables, so the state is stored. */
let last: Promise<unknown> = Promise.resolve();
function update(change: (watches: Watches, pages: Map<string, WindowClient>) => void): Promise<void> {
  const turn = last.then(async () => {
    const state = await caches.open(STATE);
    const stored = await state.match(WATCH);
    const text = (await stored?.text()) ?? '{}';
    const pages = new Map((await self.clients.matchAll({ type: 'window', includeUncontrolled: true })).map((page) => [page.id, page]));
    const watches = Object.fromEntries(Object.entries(JSON.parse(text) as Watches).filter(([page]) => pages.has(page)));
    change(watches, pages);
    const now = JSON.stringify(watches);
    if (now === text) return;
    await state.put(WATCH, new Response(now));
    for (const [page, watch] of Object.entries(watches)) pages.get(page)?.postMessage({ globeWatch: watch });
  });
  last = turn.catch(() => undefined);
  return turn;
}
