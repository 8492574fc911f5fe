//! Answers to places: parsing, gazetteer, clustering. No I/O.
//!
//! ```
//! # #[cfg(feature = "full")] {
//! use globe_geo::{Gazetteer, Precision, Sample, candidates, parse_answer};
//!
//! let gazetteer = Gazetteer::full()?;
//! let texts = ["country: France\ncity: Lyon", "Lyon, France", "I cannot determine this."];
//! let samples: Vec<Sample> = texts.map(|t| Sample::from_answer(&parse_answer(t), &gazetteer)).into();
//! let outcome = candidates(&samples, 5);
//! assert_eq!(outcome.candidates[0].city.as_deref(), Some("Lyon"));
//! assert_eq!((outcome.candidates[0].votes, outcome.refusals), (2, 1));
//! let shown = outcome.rounded(Precision::Country, &gazetteer);
//! assert_eq!(shown.candidates[0].city, None);
//! # }
//! # Ok::<(), globe_geo::Error>(())
//! ```
//!
//! Gazetteer data: GeoNames, CC BY 4.0; names from Unicode CLDR and iso-3166. See the file NOTICE.

mod answer;
mod candidates;
mod container;
mod data;
mod distance;
mod error;
mod fold;
mod gazetteer;
mod geocode;
mod locate;
mod names;
mod place;
mod precision;
mod refusal;
mod scope;
mod variants;

pub use answer::{ParseStatus, ParsedAnswer, parse_answer};
pub use candidates::{Candidate, Outcome, Sample, candidates};
pub use distance::{EARTH_RADIUS_KM, haversine_km};
pub use error::{Error, Result};
pub use fold::fold;
pub use gazetteer::Gazetteer;
pub use place::{MatchKind, Place, PlaceQuery};
pub use precision::Precision;
