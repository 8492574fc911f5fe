//! Great-circle distance.

/// Mean radius of the earth, as the published geolocation benchmarks use it.
pub const EARTH_RADIUS_KM: f64 = 6371.0;

/// Haversine distance in kilometres between two points given as `(latitude, longitude)` in degrees.
///
/// ```
/// let km = globe_geo::haversine_km((48.8566, 2.3522), (51.5074, -0.1278));
/// assert!((km - 343.6).abs() < 0.5);
/// ```
pub fn haversine_km(a: (f64, f64), b: (f64, f64)) -> f64 {
    let (phi_a, phi_b) = (a.0.to_radians(), b.0.to_radians());
    let half_phi = ((phi_b - phi_a) / 2.0).sin();
    let half_lambda = ((b.1 - a.1).to_radians() / 2.0).sin();
    let h = half_phi * half_phi + phi_a.cos() * phi_b.cos() * half_lambda * half_lambda;
    // Rounding can carry antipodes just past 1.
    2.0 * EARTH_RADIUS_KM * h.min(1.0).sqrt().asin()
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;

    #[test]
    fn known_arcs() {
        let quarter = PI / 2.0 * EARTH_RADIUS_KM;
        for (a, b, km) in [
            ((0.0, 0.0), (0.0, 0.0), 0.0),
            ((0.0, 0.0), (90.0, 0.0), quarter),
            ((0.0, 0.0), (0.0, 180.0), 2.0 * quarter),
            ((0.0, 179.5), (0.0, -179.5), quarter / 90.0),
            ((90.0, 10.0), (90.0, -70.0), 0.0),
        ] {
            assert!((haversine_km(a, b) - km).abs() < 1e-6, "{a:?} {b:?}");
        }
    }
}
