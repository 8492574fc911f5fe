// A result as GeoJSON (RFC 7946): longitude first, one point per place.

import type { Candidate, LocateResult } from './types.js';

/** A place as a feature. */
export interface PlaceFeature {
  type: 'Feature';
  geometry: { type: 'Point'; coordinates: [lon: number, lat: number] };
  properties: Candidate & { image: string; samples: number };
}

/** Places as a feature collection. */
export interface PlaceCollection {
  type: 'FeatureCollection';
  features: PlaceFeature[];
}

/** The candidates as points; properties have the names of the command line. */
export function toGeoJson(result: LocateResult, image = ''): PlaceCollection {
  return {
    type: 'FeatureCollection',
    features: result.candidates.map((candidate) => ({
      type: 'Feature',
      geometry: { type: 'Point', coordinates: [candidate.lon, candidate.lat] },
      properties: { image, samples: result.samples, ...candidate },
    })),
  };
}
