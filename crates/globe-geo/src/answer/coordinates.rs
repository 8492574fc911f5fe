//! Positions a model wrote out.

/// A position on the globe; none for 0, 0, which models write for "unknown".
pub(super) fn checked(lat: f64, lon: f64) -> Option<(f64, f64)> {
    let valid = lat.abs() <= 90.0 && lon.abs() <= 180.0 && (lat, lon) != (0.0, 0.0);
    valid.then_some((lat, lon))
}

/// `48.8566° N, 2.3522° E` or `48.8566, 2.3522`.
pub(super) fn pair(text: &str) -> Option<(f64, f64)> {
    let (lat, lon) = text.split_once([',', ';', '/'])?;
    checked(number(lat)?, number(lon)?)
}

/// A decimal number of degrees, perhaps with a compass letter; `S` and `W` are negative.
pub(super) fn number(text: &str) -> Option<f64> {
    let text = text.trim_matches(|c: char| c.is_whitespace() || "*_`\"'()[]".contains(c));
    let start = text.find(|c: char| c.is_ascii_digit() || c == '-' || c == '−')?;
    let digits = &text[start..];
    let end = digits
        .char_indices()
        .find(|&(i, c)| !(c.is_ascii_digit() || c == '.' || (i == 0 && (c == '-' || c == '−'))))
        .map_or(digits.len(), |(i, _)| i);
    let value: f64 = digits[..end].replace('−', "-").parse().ok()?;
    let unit = &digits[end..];
    // Minutes and seconds would be misread as whole degrees.
    if unit.chars().any(|c| c.is_ascii_digit()) {
        return None;
    }
    let south_or_west = unit.contains(['S', 'W']);
    Some(if south_or_west { -value.abs() } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_degrees() {
        assert_eq!(pair("48.85° N, 2.35° E"), Some((48.85, 2.35)));
        assert_eq!(pair("(-33.9, 151.2)"), Some((-33.9, 151.2)));
        assert_eq!(pair("33.9° S, 70.6° W"), Some((-33.9, -70.6)));
        assert_eq!(pair("−1.5, 30"), Some((-1.5, 30.0)));
    }

    #[test]
    fn refuses_what_is_no_position() {
        for text in ["0, 0", "91, 0", "10, 181", "48°51' N, 2°21' E", "north, east", "1.2.3, 4", ""]
        {
            assert_eq!(pair(text), None, "{text}");
        }
    }
}
