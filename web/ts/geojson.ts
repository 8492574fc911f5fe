// A result as GeoJSON (RFC 7946): longitude first, one point per place.

import type { FeatureCollection } from 'geojson';
import type { LocateResult } from './types.js';

/** The candidates as points; properties have the names of the command line. */
export function toGeoJson(result: LocateResult, image = ''): FeatureCollection {
  return {
    type: 'FeatureCollection',
    features: result.candidates.map((candidate) => ({
      type: 'Feature',
      geometry: { type: 'Point', coordinates: [candidate.lon, candidate.lat] },
      properties: { image, samples: result.samples, ...candidate },
    })),
  };
}
