// The world as SVG paths, drawn in slices of a few milliseconds: one view has some 100,000 points, too many for one task.

import { geoGraticule10, geoPath, type GeoPermissibleObjects, type GeoProjection } from 'd3-geo';
import { feature, mesh } from 'topojson-client';
import type { GeometryCollection, Topology } from 'topojson-specification';

/** What is drawn, in pieces that take a few milliseconds at most. */
export interface World {
  land: GeoPermissibleObjects[];
  borders: GeoPermissibleObjects[];
}

/** Texts for the `d` of a path. */
export interface Drawing {
  graticule: string;
  land: string;
  borders: string;
}

/** A visitor waits no longer than this for the page to hear them. */
const SLICE_MS = 8;

/** Gives the page the word when the last time is a while ago. */
class Slices {
  private begun = performance.now();

  async next(): Promise<void> {
    if (performance.now() - this.begun < SLICE_MS) return;
    await new Promise((done) => setTimeout(done));
    this.begun = performance.now();
  }
}

/** Reads a topology with the objects `land` and `countries`. */
export async function readWorld(url: string): Promise<World> {
  const slices = new Slices();
  const response = await fetch(url);
  if (!response.ok) throw new Error(`the map did not arrive: the server answered ${response.status}`);
  const topology = (await response.json()) as Topology<{ countries: GeometryCollection; land: GeometryCollection }>;
  const { countries, land } = topology.objects;
  await slices.next(); // reading it took a slice
  const polygons: GeoPermissibleObjects[] = [];
  for (const { geometry: shape } of feature(topology, land).features) {
    if (shape.type === 'Polygon') polygons.push(shape);
    if (shape.type !== 'MultiPolygon') continue;
    for (const coordinates of shape.coordinates) polygons.push({ type: 'Polygon', coordinates });
  }
  await slices.next();
  const lines = mesh(topology, countries, (a, b) => a !== b).coordinates;
  return { land: polygons, borders: lines.map((coordinates) => ({ type: 'LineString', coordinates })) };
}

/** The world under a projection. */
export async function drawWorld(world: World, projection: GeoProjection): Promise<Drawing> {
  const path = geoPath(projection).digits(1);
  const slices = new Slices();
  const drawn = async (pieces: GeoPermissibleObjects[]) => {
    const texts: string[] = [];
    for (const piece of pieces) {
      await slices.next();
      texts.push(path(piece) ?? '');
    }
    return texts.join('');
  };
  return { graticule: await drawn([geoGraticule10()]), land: await drawn(world.land), borders: await drawn(world.borders) };
}
