// Numbers and places in words.

import type { Candidate, LocateResult, Progress } from '../types.js';
import { size } from '../probe.js';

/** A candidate's name, the country in the reader's language. */
export function placeName(candidate: Candidate, language: string): string {
  return [candidate.city, candidate.city ? null : candidate.region, countryName(candidate, language)].filter(Boolean).join(', ');
}

const countries = new Map<string, Intl.DisplayNames>();

/** Names of countries in a language. A browser takes some 30 ms to look up the first: an element asks early, in a task of its own. */
export function countryNames(language: string): Intl.DisplayNames | null {
  try {
    const names = countries.get(language) ?? new Intl.DisplayNames([language], { type: 'region' });
    countries.set(language, names);
    return names;
  } catch {
    return null; // a language tag that the browser does not know
  }
}

export function countryName(candidate: Candidate, language: string): string {
  try {
    return countryNames(language)?.of(candidate.country_code) ?? candidate.country;
  } catch {
    return candidate.country; // a code that is none
  }
}

export function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

export function distance(km: number): string {
  return km < 10 ? `${km.toFixed(1)} km` : `${Math.round(km).toLocaleString('en')} km`;
}

export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
}

/** Where a load stands. */
export function progressWords({ stage, done, total }: Progress): string {
  switch (stage) {
    case 'fetch':
      return total > 0 ? `Downloading: ${size(done)} of ${size(total)}` : `Downloading: ${size(done)}`;
    case 'verify':
      return `Checking: ${size(done)} of ${size(total)}`;
    case 'upload':
      return total > 0 ? `Moving to the graphics processor: ${size(done)} of ${size(total)}` : `Moving to the graphics processor: ${size(done)}`;
    case 'compile':
      return 'Preparing the kernels';
  }
}

/** What the answers say, in one sentence. */
export function summary(result: LocateResult): string {
  const [best] = result.candidates;
  if (best) return `${best.votes} of ${result.samples} answers name it`;
  if (result.refusals > 0) return `The model says that it cannot tell, in ${result.refusals} of ${result.samples} answers.`;
  if (result.parsed > 0) return `${result.parsed} of ${result.samples} answers name a place, but none that the gazetteer knows.`;
  return `None of ${result.samples} answers names a place.`;
}

/** Great-circle distance, sphere of 6371 km, as in evaluation. */
export function greatCircleKm(a: { lat: number; lon: number }, b: { lat: number; lon: number }): number {
  const radians = Math.PI / 180;
  const dLat = (b.lat - a.lat) * radians;
  const dLon = (b.lon - a.lon) * radians;
  const h = Math.sin(dLat / 2) ** 2 + Math.cos(a.lat * radians) * Math.cos(b.lat * radians) * Math.sin(dLon / 2) ** 2;
  return 2 * 6371 * Math.asin(Math.min(1, Math.sqrt(h)));
}

export function coordinates({ lat, lon }: { lat: number; lon: number }, digits: number): string {
  return `${Math.abs(lat).toFixed(digits)}° ${lat < 0 ? 'S' : 'N'}, ${Math.abs(lon).toFixed(digits)}° ${lon < 0 ? 'W' : 'E'}`;
}
