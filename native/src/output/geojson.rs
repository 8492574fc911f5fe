//! Results as one GeoJSON collection (RFC 7946): longitude first, one point per place.

use globe_geo::Candidate;
use serde::Serialize;

use super::{Formatter, Record, Status};

/// A feature collection.
#[derive(Default)]
pub struct GeoJson {
    n_features: usize,
    images: Vec<String>,
}

#[derive(Serialize)]
struct Feature<'a> {
    r#type: &'static str,
    geometry: Point,
    properties: Properties<'a>,
}

#[derive(Serialize)]
struct Point {
    r#type: &'static str,
    coordinates: [f64; 2], // longitude, latitude
}

#[derive(Serialize)]
struct Properties<'a> {
    image: &'a str,
    samples: usize,
    #[serde(flatten)]
    candidate: &'a Candidate,
}

/// Every image is listed here, since one without a place has no feature.
#[derive(Serialize)]
struct Image<'a> {
    image: &'a str,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl GeoJson {
    fn feature(&mut self, image: &str, samples: usize, c: &Candidate) -> anyhow::Result<String> {
        let geometry = Point { r#type: "Point", coordinates: [c.lon, c.lat] };
        let properties = Properties { image, samples, candidate: c };
        let feature = Feature { r#type: "Feature", geometry, properties };
        let separator = if self.n_features == 0 { "\n" } else { ",\n" };
        self.n_features += 1;
        Ok(format!("{separator}{}", serde_json::to_string(&feature)?))
    }
}

impl Formatter for GeoJson {
    fn begin(&mut self) -> String {
        "{\"type\":\"FeatureCollection\",\"features\":[".into()
    }

    fn record(&mut self, record: &Record) -> anyhow::Result<String> {
        let (image, status) = (record.image.as_str(), record.status());
        let error = record.outcome.as_ref().err().map(String::as_str);
        self.images.push(serde_json::to_string(&Image { image, status, error })?);
        let Ok(result) = &record.outcome else { return Ok(String::new()) };
        let outcome = &result.outcome;
        outcome.candidates.iter().map(|c| self.feature(image, outcome.samples, c)).collect()
    }

    /// `images` is a foreign member (RFC 7946, section 6.1): readers of maps ignore it.
    fn end(&mut self) -> String {
        let newline = if self.n_features == 0 { "" } else { "\n" };
        format!("{newline}],\"images\":[{}]}}\n", self.images.join(","))
    }
}

#[cfg(test)]
mod tests {
    use globe_geo::Precision;
    use serde_json::Value;

    use super::super::tests::{document, empty_document};
    use crate::args::Format;

    #[test]
    fn points_have_longitude_first() {
        let json: Value =
            serde_json::from_str(&document(Format::Geojson, Precision::City)).unwrap();
        assert_eq!(json["type"], "FeatureCollection");
        let features = json["features"].as_array().unwrap();
        assert_eq!(features.len(), 2, "images without a place have no feature");
        let first = &features[0];
        assert_eq!(
            (&first["type"], &first["geometry"]["type"]),
            (&"Feature".into(), &"Point".into())
        );
        let at = &first["geometry"]["coordinates"];
        assert!((at[0].as_f64().unwrap() - 4.85).abs() < 0.05, "longitude");
        assert!((at[1].as_f64().unwrap() - 45.75).abs() < 0.05, "latitude");
        let properties = &first["properties"];
        assert_eq!(
            (&properties["image"], &properties["rank"]),
            (&"a, \"b\".jpg".into(), &1.into())
        );
        assert_eq!((&properties["city"], &properties["samples"]), (&"Lyon".into(), &6.into()));
        let statuses: Vec<_> =
            json["images"].as_array().unwrap().iter().map(|i| &i["status"]).collect();
        assert_eq!(statuses, ["located", "not_located", "failed"]);
    }

    #[test]
    fn nothing_is_valid_too() {
        let json: Value = serde_json::from_str(&empty_document(Format::Geojson)).unwrap();
        assert_eq!(json["features"], Value::Array(vec![]));
    }
}
