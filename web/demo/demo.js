// The page around the element: offline use, sealed mode and the count of requests since the model was loaded.

import './globe/element.js';

const locator = document.querySelector('globe-locator');
const network = document.querySelector('#network');
const seal = document.querySelector('#seal');
const words = document.querySelector('#seal-words');

/** What the service worker counts: requests for the network since the model was loaded. */
let watch = null;

locator.addEventListener('ready', () => navigator.serviceWorker?.controller?.postMessage({ watch: true }));

function show() {
  const count = (n) => `${n} ${n === 1 ? 'request' : 'requests'}`;
  const sealed = watch?.sealed ?? false;
  network.textContent = watch ? `${count(watch.requests)} since the model was loaded.` : '';
  seal.disabled = !watch;
  seal.setAttribute('aria-pressed', String(sealed));
  seal.textContent = sealed ? 'Sealed' : 'Seal the page';
  words.textContent = sealed
    ? `Nothing reaches the network until you reload the page. ${count(watch.refused)} refused.`
    : 'Once a model is loaded, you can seal the page: nothing then reaches the network until you reload it.';
}

seal.addEventListener('click', () => navigator.serviceWorker.controller?.postMessage({ seal: !watch?.sealed }));

if (navigator.serviceWorker) {
  navigator.serviceWorker.addEventListener('message', ({ data }) => {
    if (!('globeWatch' in data)) return;
    watch = data.globeWatch;
    show();
  });
  await navigator.serviceWorker.register('sw.js', { type: 'module' }).catch(() => undefined);
}
show();

// Whoever serves the page says whether its model was ever trained.
const about = await fetch('models/demo/about.json').catch(() => null);
if (about?.ok) document.querySelector('#untrained').hidden = !(await about.json()).random;
