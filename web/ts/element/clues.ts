// Which words of a model's reasoning name evidence that a reader can check in the photo.

/** A run of text; `kind` says why it is marked. */
export interface Run {
  text: string;
  kind: 'plain' | 'clue' | 'place';
}

/** Words for things that geolocation goes by: what is written, built, driven, worn, grown, and the light. */
const CLUES = [
  'language', 'script', 'alphabet', 'cyrillic', 'arabic', 'hangul', 'kanji', 'signs?', 'signage', 'street signs?', 'road signs?', 'billboards?', 'shop names?',
  'licen[cs]e plates?', 'number plates?', 'registration plates?', 'flags?', 'architecture', 'architectural', 'facades?', 'roofs?', 'roof tiles?', 'balcon(?:y|ies)', 'shutters?',
  'churches|church', 'mosques?', 'temples?', 'towers?', 'domes?', 'minarets?', 'cathedrals?', 'bridges?', 'castles?', 'skyline', 'monuments?', 'landmarks?', 'statues?',
  'road markings?', 'lane markings?', 'driv(?:e|ing) on the (?:left|right)', 'bollards?', 'utility poles?', 'power lines', 'trams?', 'trolleybus(?:es)?', 'taxis?', 'tuk-tuks?',
  'vegetation', 'palm trees?', 'palms', 'pines?', 'birch(?:es)?', 'eucalyptus', 'cact(?:us|i)', 'vineyards?', 'rice (?:fields?|paddies)', 'olive trees?', 'cypress(?:es)?',
  'mountains?', 'volcano(?:es)?', 'desert', 'coast(?:line)?', 'harbou?r', 'canals?', 'river', 'cobblestones?', 'soil', 'snow', 'climate', 'sunlight', 'clothing', 'currency', 'phone numbers?',
];

/** Longer ones first: "roof tiles" is one clue, not "roof". */
const LONGEST_FIRST = [...CLUES].sort((a, b) => b.length - a.length);
const CLUE = new RegExp(`(?<![\\p{L}\\p{N}])(?:${LONGEST_FIRST.join('|')})(?![\\p{L}\\p{N}])`, 'giu');

/** Cuts text into runs. `places` are names of the candidates, marked as such. */
export function markClues(text: string, places: readonly string[]): Run[] {
  const names = places.filter((name) => name.length > 2).map(escape).sort((a, b) => b.length - a.length);
  const place = names.length > 0 ? new RegExp(`(?<![\\p{L}\\p{N}])(?:${names.join('|')})(?![\\p{L}\\p{N}])`, 'giu') : null;
  const found: { start: number; end: number; kind: Run['kind'] }[] = [];
  const gather = (pattern: RegExp | null, kind: Run['kind']) => {
    for (const match of pattern ? text.matchAll(pattern) : []) {
      found.push({ start: match.index, end: match.index + match[0].length, kind });
    }
  };
  gather(place, 'place');
  gather(CLUE, 'clue');
  found.sort((a, b) => a.start - b.start || b.end - a.end);
  const runs: Run[] = [];
  let at = 0;
  for (const { start, end, kind } of found) {
    if (start < at) continue;
    if (start > at) runs.push({ text: text.slice(at, start), kind: 'plain' });
    runs.push({ text: text.slice(start, end), kind });
    at = end;
  }
  if (at < text.length) runs.push({ text: text.slice(at), kind: 'plain' });
  return runs;
}

function escape(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
