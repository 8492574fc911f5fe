//! `data check`: reads everything once and says what training would stumble over.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use globe_geo::{Gazetteer, MatchKind, PlaceQuery};
use globe_image::{DecodeLimits, decode};
use sha2::{Digest, Sha256};

use super::{
    Sample,
    dataset::{data_files, extension, read_table},
    parquet,
};
use crate::Result;

/// Problems of one kind that are listed; all are counted.
const MAX_LISTED: usize = 20;

/// A row or photo with a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Id of the row, or file, row and column.
    pub at: String,
    /// What is wrong.
    pub what: String,
}

/// Problems of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub listed: Vec<Problem>,
}

impl Problems {
    fn add(&mut self, at: String, what: String) {
        self.count += 1;
        if self.listed.len() < MAX_LISTED {
            self.listed.push(Problem { at, what });
        }
    }
}

/// What was found. [`fmt::Display`] prints it for people.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Check {
    /// Files read.
    pub files: usize,
    /// Rows in them, bad ones included.
    pub rows: usize,
    /// Rows that do not fit the schema: training would stop.
    pub bad_rows: Problems,
    /// Photos that do not decode: training would leave them out.
    pub bad_images: Problems,
    /// Photos that occur again, by their bytes.
    pub duplicates: Problems,
    /// Names the gazetteer does not know: letters decide there.
    pub unknown_places: Problems,
    /// Rows with a country, a city, a position, clues, a response, a yes/no label.
    pub fields: BTreeMap<&'static str, usize>,
    /// Rows per country as written.
    pub countries: BTreeMap<String, usize>,
    /// Smallest and largest number of pixels.
    pub pixels: Option<(usize, usize)>,
}

/// Reads all rows and decodes all photos at `path`.
///
/// # Errors
/// If a file cannot be opened or listed. Faults of rows and photos are the result.
pub fn check(path: &Path, images: Option<&Path>, gazetteer: &Gazetteer) -> Result<Check> {
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    let images = images.or(folder).unwrap_or(Path::new(""));
    let (mut out, mut seen) = (Check::default(), BTreeSet::new());
    for file in data_files(path)? {
        out.files += 1;
        if extension(&file) == "parquet" {
            let mut first_row = 0;
            for (group, rows) in parquet::group_rows(&file)?.into_iter().enumerate() {
                let samples = parquet::read_group(&file, group, first_row, images)?;
                samples.into_iter().for_each(|s| out.add(s, gazetteer, &mut seen));
                first_row += rows;
            }
        } else {
            let samples = read_table(&file, images)?;
            samples.into_iter().for_each(|s| out.add(s, gazetteer, &mut seen));
        }
    }
    Ok(out)
}

impl Check {
    /// True when training would neither stop nor leave anything out.
    pub fn is_clean(&self) -> bool {
        self.rows > 0 && self.bad_rows.count == 0 && self.bad_images.count == 0
    }

    fn add(&mut self, row: Result<Sample>, gazetteer: &Gazetteer, seen: &mut BTreeSet<[u8; 32]>) {
        self.rows += 1;
        let sample = match row {
            Ok(sample) => sample,
            Err(error) => {
                return self.bad_rows.add(format!("row {}", self.rows), error.to_string());
            }
        };
        for (name, present) in [
            ("country", sample.country.is_some()),
            ("city", sample.city.is_some()),
            ("position", sample.position.is_some()),
            ("clues", !sample.clues.is_empty()),
            ("response", sample.response.is_some()),
            ("label", sample.label.is_some()),
        ] {
            *self.fields.entry(name).or_default() += usize::from(present);
        }
        if let Some(country) = &sample.country {
            *self.countries.entry(country.clone()).or_default() += 1;
        }
        self.check_place(&sample, gazetteer);
        self.check_image(sample, seen);
    }

    fn check_place(&mut self, sample: &Sample, gazetteer: &Gazetteer) {
        let (country, city) = (sample.country.as_deref(), sample.city.as_deref());
        if country.is_none() {
            return;
        }
        let place = gazetteer.locate(&PlaceQuery { country, region: None, city });
        let known =
            place.is_some_and(|p| !p.match_kind.is_fallback() && p.match_kind != MatchKind::Typo);
        if !known {
            let what = format!("{}, {}", city.unwrap_or("-"), country.unwrap_or("-"));
            self.unknown_places.add(sample.id.clone(), what);
        }
    }

    fn check_image(&mut self, sample: Sample, seen: &mut BTreeSet<[u8; 32]>) {
        let bytes = match sample.image.bytes() {
            Ok(bytes) => bytes,
            Err(error) => return self.bad_images.add(sample.id, error.to_string()),
        };
        if !seen.insert(Sha256::digest(&bytes).into()) {
            self.duplicates.add(sample.id.clone(), "the same photo occurs before".into());
        }
        match decode(&bytes, &DecodeLimits::default()) {
            Ok(photo) => {
                let pixels = photo.width * photo.height;
                let (least, most) = self.pixels.unwrap_or((pixels, pixels));
                self.pixels = Some((least.min(pixels), most.max(pixels)));
            }
            Err(error) => self.bad_images.add(sample.id, error.to_string()),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} rows in {} files, {} countries",
            self.rows,
            self.files,
            self.countries.len()
        )?;
        let fields: Vec<_> = self.fields.iter().map(|(name, n)| format!("{name} {n}")).collect();
        writeln!(f, "rows with: {}", fields.join(", "))?;
        if let Some((least, most)) = self.pixels {
            writeln!(f, "pixels per photo: {least} to {most}")?;
        }
        for (title, problems) in [
            ("bad rows (training stops)", &self.bad_rows),
            ("bad photos (left out)", &self.bad_images),
            ("repeated photos", &self.duplicates),
            ("places not in the gazetteer (compared by letters)", &self.unknown_places),
        ] {
            writeln!(f, "{title}: {}", problems.count)?;
            for problem in &problems.listed {
                writeln!(f, "  {}: {}", problem.at, problem.what)?;
            }
            if problems.count > problems.listed.len() {
                writeln!(f, "  … and {} more", problems.count - problems.listed.len())?;
            }
        }
        Ok(())
    }
}
