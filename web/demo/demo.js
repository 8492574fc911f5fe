// The page around the element: offline use, sealed mode and the count of requests since the model was loaded.

import './globe/element.js';

const locator = document.querySelector('globe-locator');
const network = document.querySelector('#network');
const seal = document.querySelector('#seal');
const words = document.querySelector('#seal-words');

/** What the service worker counts: requests for the network since the model was loaded. */
let watch = null;

/** A service worker may arrive after the model, or another take its place; one may have forgotten a page that was put aside. */
function tell() {
  if (locator.globe) navigator.serviceWorker?.controller?.postMessage(watch?.sealed ? { seal: true } : { watch: true });
}
locator.addEventListener('ready', () => setTimeout(tell)); // the element takes the model first
addEventListener('pageshow', ({ persisted }) => persisted && tell());

function show() {
  const requests = (n) => `${n} ${n === 1 ? 'request' : 'requests'}`;
  const sealed = watch?.sealed ?? false;
  network.textContent = watch ? `${requests(watch.requests)} since the model was loaded.` : '';
  seal.disabled = !watch;
  seal.setAttribute('aria-pressed', String(sealed));
  seal.textContent = sealed ? 'Sealed' : 'Seal the page';
  words.textContent = sealed
    ? `This page reaches nothing on the network until you reload it. ${requests(watch.refused)} refused.`
    : 'Once a model is loaded, you can seal the page: it then reaches nothing on the network until you reload it.';
}

seal.addEventListener('click', () => navigator.serviceWorker.controller?.postMessage({ seal: !watch?.sealed }));

if (navigator.serviceWorker) {
  navigator.serviceWorker.addEventListener('message', ({ data }) => {
    if (!('globeWatch' in data)) return;
    watch = data.globeWatch;
    show();
  });
  navigator.serviceWorker.addEventListener('controllerchange', tell);
  await navigator.serviceWorker.register('sw.js').catch(() => undefined);
}
show();

// A photo may be dropped anywhere; a browser would open it in the place of the page.
addEventListener('dragover', (event) => event.preventDefault());
addEventListener('drop', (event) => {
  if (event.defaultPrevented) return; // the element has it
  event.preventDefault();
  const [file] = event.dataTransfer?.files ?? [];
  if (file) void locator.take(file);
});

// Whoever serves the page says whether its model was ever trained.
const about = await fetch('models/demo/about.json').catch(() => null);
if (about?.ok) document.querySelector('#untrained').hidden = !(await about.json()).random;
