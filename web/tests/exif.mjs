// A JPEG file with EXIF data, as a phone writes it.

const [SHORT, ASCII, RATIONAL, LONG] = [3, 2, 5, 4];

/** Bytes of a TIFF block, little-endian: orientation 1 to 8, and a position in degrees. */
function tiff(orientation, { lat, lon }) {
  const rationals = (degrees) => {
    const minutes = (Math.abs(degrees) % 1) * 60;
    return [[Math.trunc(Math.abs(degrees)), 1], [Math.trunc(minutes), 1], [Math.round((minutes % 1) * 60_000), 1000]];
  };
  const gps = 8 + 2 + 2 * 12 + 4;
  const values = gps + 2 + 4 * 12 + 4;
  const bytes = Buffer.alloc(values + 48);
  bytes.write('II*\0', 0, 'latin1');
  bytes.writeUInt32LE(8, 4);
  const entry = (at, tag, type, count, value) => {
    bytes.writeUInt16LE(tag, at);
    bytes.writeUInt16LE(type, at + 2);
    bytes.writeUInt32LE(count, at + 4);
    if (typeof value === 'string') bytes.write(value, at + 8, 'latin1');
    else bytes.writeUInt32LE(value, at + 8);
  };
  bytes.writeUInt16LE(2, 8);
  entry(10, 0x0112, SHORT, 1, orientation);
  entry(22, 0x8825, LONG, 1, gps);
  bytes.writeUInt16LE(4, gps);
  entry(gps + 2, 1, ASCII, 2, lat < 0 ? 'S' : 'N');
  entry(gps + 14, 2, RATIONAL, 3, values);
  entry(gps + 26, 3, ASCII, 2, lon < 0 ? 'W' : 'E');
  entry(gps + 38, 4, RATIONAL, 3, values + 24);
  for (const [i, [above, below]] of [...rationals(lat), ...rationals(lon)].entries()) {
    bytes.writeUInt32LE(above, values + 8 * i);
    bytes.writeUInt32LE(below, values + 8 * i + 4);
  }
  return bytes;
}

/** The JPEG with an EXIF segment before all others. */
export function withExif(jpeg, orientation, position) {
  const body = Buffer.concat([Buffer.from('Exif\0\0', 'latin1'), tiff(orientation, position)]);
  const head = Buffer.from([0xff, 0xd8, 0xff, 0xe1, 0, 0]);
  head.writeUInt16BE(body.length + 2, 4);
  return Buffer.concat([head, body, jpeg.subarray(2)]);
}
