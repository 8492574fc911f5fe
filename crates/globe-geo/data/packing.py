"""Tables to the bytes of a gazetteer file, as src/data.rs and src/container.rs read them."""

import hashlib

import zstandard

MAGIC = b"GLOBEGAZ"
FORMAT = 1


class Writer:
    """LEB128 integers and newline-ended text, each column on its own."""

    def __init__(self):
        self.bytes = bytearray()

    def uint(self, value):
        while value >= 0x80:
            self.bytes.append(value & 0x7F | 0x80)
            value >>= 7
        self.bytes.append(value)

    def sint(self, value):
        self.uint(value * 2 if value >= 0 else -value * 2 - 1)

    def column(self, values):
        for value in values:
            self.uint(value)

    def signed_column(self, values):
        for value in values:
            self.sint(value)

    def text(self, lines):
        blob = "".join(line + "\n" for line in lines).encode()
        self.uint(len(blob))
        self.bytes += blob


def fixed(degrees):
    return round(degrees * 10_000)


def lines_of(display, keys):
    """Display name, then keys; the reader lower-cases an ASCII name itself, so "" stands for that."""
    ascii_lower = "".join(c.lower() if c.isascii() else c for c in display)
    return [display] + ["" if k == ascii_lower else k for k in keys]


def write_places(out, places):
    """The columns all three tables share: point, population, count of keys, names."""
    out.signed_column(fixed(p["lat"]) for p in places)
    out.signed_column(fixed(p["lon"]) for p in places)
    out.column(p["population"] for p in places)
    out.column(len(p["keys"]) for p in places)
    out.text(line for p in places for line in lines_of(p["name"], p["keys"]))


def payload(countries, regions, cities):
    out = Writer()
    index = {c["code"]: i for i, c in enumerate(countries)}
    out.uint(len(countries))
    out.text(c["code"] for c in countries)
    out.text(c["code3"] for c in countries)
    out.column(c["radius_km"] for c in countries)
    out.column(index[c["parent"]] + 1 if c["parent"] else 0 for c in countries)
    write_places(out, countries)

    region_index = {(r["country"], r["code"]): i for i, r in enumerate(regions)}
    out.uint(len(regions))
    out.column(index[r["country"]] for r in regions)
    out.column(r["radius_km"] for r in regions)
    write_places(out, regions)

    out.uint(len(cities))
    out.column(index[c["country"]] for c in cities)
    out.column(region_index.get((c["country"], c["admin1"]), -1) + 1 for c in cities)
    write_places(out, cities)
    return bytes(out.bytes)


def gazetteer_file(version, raw):
    packed = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(
            22, window_log=24, write_checksum=False)).compress(raw)
    version = version.encode()
    body = bytes([len(version)]) + version + len(raw).to_bytes(4, "little") + packed
    return MAGIC + FORMAT.to_bytes(2, "little") + hashlib.sha256(body).digest() + body
