//! The decompressed payload as tables. Twin of data/packing.py.

use crate::{Error, Result, names::Names};

/// Degrees are stored as ten-thousandths: 11 m at most.
const FIXED_PER_DEGREE: f64 = 10_000.0;

/// Everything in one gazetteer file.
#[derive(Debug)]
pub(crate) struct Tables {
    pub countries: Vec<Country>,
    pub country_names: Names,
    pub regions: Vec<Region>,
    pub region_names: Names,
    pub cities: Vec<City>,
    pub city_names: Names,
}

/// Where a place is and how many live there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    lat: i32,
    lon: i32,
    pub population: u32,
}

impl Spot {
    pub(crate) fn lat(self) -> f64 {
        f64::from(self.lat) / FIXED_PER_DEGREE
    }

    pub(crate) fn lon(self) -> f64 {
        f64::from(self.lon) / FIXED_PER_DEGREE
    }
}

/// A country or territory with an ISO 3166-1 code.
#[derive(Debug)]
pub(crate) struct Country {
    pub code: [u8; 2],
    pub code3: [u8; 3],
    pub radius_km: u32,
    /// The state it is also written under, see `TERRITORY_OF` in data/curated.py.
    pub parent: Option<u16>,
    pub spot: Spot,
}

/// A first-level division of a country.
#[derive(Debug)]
pub(crate) struct Region {
    pub country: u16,
    pub radius_km: u32,
    pub spot: Spot,
}

/// A populated place.
#[derive(Debug)]
pub(crate) struct City {
    pub country: u16,
    pub region: Option<u16>,
    pub spot: Spot,
}

impl Tables {
    /// Reads all tables; every index in them is checked here, so that lookups need not.
    pub(crate) fn read(payload: &[u8]) -> Result<Self> {
        let mut reader = Reader { bytes: payload, at: 0, table: "country table" };
        let (countries, country_names) = read_countries(&mut reader)?;
        reader.table = "region table";
        let (regions, region_names) = read_regions(&mut reader, countries.len())?;
        reader.table = "city table";
        let (cities, city_names) = read_cities(&mut reader, countries.len(), regions.len())?;
        if reader.at != payload.len() {
            return Err(reader.malformed());
        }
        Ok(Self { countries, country_names, regions, region_names, cities, city_names })
    }
}

fn read_countries(reader: &mut Reader) -> Result<(Vec<Country>, Names)> {
    let n = reader.count()?;
    let codes = reader.codes::<2>(n)?;
    let codes3 = reader.codes::<3>(n)?;
    let radii = reader.column(n)?;
    let parents = reader.column(n)?;
    let (spots, names) = reader.places(n)?;
    let mut countries = Vec::with_capacity(n);
    for (i, spot) in spots.into_iter().enumerate() {
        let parent = reader.optional(parents[i], n)?;
        countries.push(Country {
            code: codes[i],
            code3: codes3[i],
            radius_km: radii[i],
            parent,
            spot,
        });
    }
    Ok((countries, names))
}

fn read_regions(reader: &mut Reader, n_countries: usize) -> Result<(Vec<Region>, Names)> {
    let n = reader.count()?;
    let countries = reader.column(n)?;
    let radii = reader.column(n)?;
    let (spots, names) = reader.places(n)?;
    let mut regions = Vec::with_capacity(n);
    for (i, spot) in spots.into_iter().enumerate() {
        let country = reader.index(countries[i], n_countries)?;
        regions.push(Region { country, radius_km: radii[i], spot });
    }
    Ok((regions, names))
}

fn read_cities(
    reader: &mut Reader,
    n_countries: usize,
    n_regions: usize,
) -> Result<(Vec<City>, Names)> {
    let n = reader.count()?;
    let countries = reader.column(n)?;
    let regions = reader.column(n)?;
    let (spots, names) = reader.places(n)?;
    let mut cities = Vec::with_capacity(n);
    for (i, spot) in spots.into_iter().enumerate() {
        let country = reader.index(countries[i], n_countries)?;
        let region = reader.optional(regions[i], n_regions)?;
        cities.push(City { country, region, spot });
    }
    Ok((cities, names))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    table: &'static str,
}

impl<'a> Reader<'a> {
    fn malformed(&self) -> Error {
        Error::Malformed { table: self.table, at: self.at }
    }

    /// LEB128, at most 32 bits.
    fn uint(&mut self) -> Result<u32> {
        let mut value = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = *self.bytes.get(self.at).ok_or_else(|| self.malformed())?;
            self.at += 1;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| self.malformed());
            }
        }
        Err(self.malformed())
    }

    /// A row count. Every row takes a byte at least, so a larger count is wrong before it is used.
    fn count(&mut self) -> Result<usize> {
        let n = self.uint()? as usize;
        if n > self.bytes.len() - self.at { Err(self.malformed()) } else { Ok(n) }
    }

    fn column(&mut self, n: usize) -> Result<Vec<u32>> {
        (0..n).map(|_| self.uint()).collect()
    }

    /// Degrees in fixed point, within `limit` either way.
    fn degrees(&mut self, n: usize, limit: i32) -> Result<Vec<i32>> {
        let mut column = Vec::with_capacity(n);
        for _ in 0..n {
            let zigzag = self.uint()?;
            let value = (zigzag >> 1) as i32 ^ -((zigzag & 1) as i32);
            if value.unsigned_abs() > limit.unsigned_abs() * FIXED_PER_DEGREE as u32 {
                return Err(self.malformed());
            }
            column.push(value);
        }
        Ok(column)
    }

    fn text(&mut self) -> Result<&'a str> {
        let len = self.uint()? as usize;
        let slice = self.bytes[self.at..].get(..len).ok_or_else(|| self.malformed())?;
        let text = std::str::from_utf8(slice).map_err(|_| self.malformed())?;
        self.at += len;
        Ok(text)
    }

    fn codes<const N: usize>(&mut self, n: usize) -> Result<Vec<[u8; N]>> {
        let lines = self.text()?.lines();
        let codes: Option<Vec<_>> =
            lines.map(|l| l.as_bytes().try_into().ok().filter(|_| l.is_ascii())).collect();
        codes.filter(|c| c.len() == n).ok_or_else(|| self.malformed())
    }

    /// The columns every table ends with.
    fn places(&mut self, n: usize) -> Result<(Vec<Spot>, Names)> {
        let lat = self.degrees(n, 90)?;
        let lon = self.degrees(n, 180)?;
        let population = self.column(n)?;
        let n_keys = self.column(n)?;
        let names = Names::read(self.text()?, &n_keys).ok_or_else(|| self.malformed())?;
        let spots =
            (0..n).map(|i| Spot { lat: lat[i], lon: lon[i], population: population[i] }).collect();
        Ok((spots, names))
    }

    fn index(&self, value: u32, len: usize) -> Result<u16> {
        u16::try_from(value).ok().filter(|&i| usize::from(i) < len).ok_or_else(|| self.malformed())
    }

    /// 0 stands for none.
    fn optional(&self, value: u32, len: usize) -> Result<Option<u16>> {
        value.checked_sub(1).map(|i| self.index(i, len)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One country, one region, one city.
    fn smallest() -> Vec<u8> {
        let mut bytes = vec![1, 3];
        bytes.extend(b"XX\n\x04XXX\n\x05\x00"); // codes, radius, no parent
        bytes.extend([2, 3, 9, 1, 7]); // lat, lon, population, one key, length of text
        bytes.extend(b"Xland\n\n");
        bytes.extend([1, 0, 5, 2, 3, 9, 1, 5]);
        bytes.extend(b"Reg\n\n");
        bytes.extend([1, 0, 1, 2, 3, 9, 1, 6]);
        bytes.extend(b"Town\n\n");
        bytes
    }

    #[test]
    fn reads_the_smallest_payload() {
        let tables = Tables::read(&smallest()).unwrap();
        assert_eq!(tables.countries[0].code, *b"XX");
        assert_eq!(tables.cities[0].region, Some(0));
        assert_eq!(tables.cities[0].spot.lat(), 0.0001);
        assert_eq!(tables.cities[0].spot.lon(), -0.0002);
        assert_eq!(tables.city_names.display(0), "Town");
        assert_eq!(tables.country_names.find("xland").count(), 1);
    }

    #[test]
    fn every_truncation_and_every_extra_byte_is_an_error() {
        let whole = smallest();
        for len in 0..whole.len() {
            assert!(
                matches!(Tables::read(&whole[..len]), Err(Error::Malformed { .. })),
                "{len} bytes"
            );
        }
        let extra = [whole.as_slice(), &[0]].concat();
        assert!(Tables::read(&extra).is_err());
    }

    #[test]
    fn indices_out_of_range_are_errors() {
        let whole = smallest();
        let city_country = whole.len() - 13;
        for (at, value) in [(city_country, 1), (city_country + 1, 2), (9, 2)] {
            let mut bad = whole.clone();
            bad[at] = value;
            assert!(Tables::read(&bad).is_err(), "byte {at}");
        }
    }
}
