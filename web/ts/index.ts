// The package: locate photos in the tab.

export { Globe, type ImageInput, type LoadOptions, type LocateCall } from './globe.js';
export { GlobeError, type ErrorCode } from './errors.js';
export type { Probe } from './probe.js';
export { toGeoJson, type PlaceCollection, type PlaceFeature } from './geojson.js';
export type * from './types.js';
