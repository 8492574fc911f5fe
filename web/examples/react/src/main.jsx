// The element in React 19, which sets properties and listens to events of custom elements by itself.

import { StrictMode, useState } from 'react';
import { createRoot } from 'react-dom/client';
import 'globe-locator/element';

function App() {
  const [place, setPlace] = useState('no photo yet');
  const show = ({ detail: { candidates, located } }) => setPlace(located ? candidates[0].country : 'not located');
  return (
    <>
      <h1>Vite and React</h1>
      <globe-locator model="/model/" samples="1" max-tokens="8" onresult={show} />
      <output>{place}</output>
    </>
  );
}

createRoot(document.getElementById('root')).render(<StrictMode><App /></StrictMode>);
