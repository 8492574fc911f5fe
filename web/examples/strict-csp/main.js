// One call, under the policy of `policy.txt`, which the server sends as a header.

import { Globe } from '/dist/globe.js';

const text = document.querySelector('#text');
const place = document.querySelector('#place');
let globe = null;

document.querySelector('#photo').addEventListener('change', async ({ target: { files } }) => {
  try {
    globe ??= await Globe.load({ url: '/model/', onProgress: ({ stage }) => (place.value = stage) });
    const result = await globe.locate(files[0], { samples: 1, maxTokens: 8, onToken: (more) => text.append(more) });
    place.value = result.located ? `${result.candidates[0].city}, ${result.candidates[0].country}` : 'not located';
  } catch (error) {
    place.value = `${error.code}: ${error.message}`;
  }
});
