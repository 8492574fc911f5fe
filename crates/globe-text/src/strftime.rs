//! `strftime` for chat templates that print the date: UTC, English names.

/// Seconds per day.
const DAY_S: i64 = 86_400;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// From Thursday, the day the Unix epoch started on.
const WEEKDAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// `format` at `unix_s`; the error is the directive that is not supported.
pub(crate) fn strftime(format: &str, unix_s: i64) -> Result<String, String> {
    let days = unix_s.div_euclid(DAY_S);
    let (year, month, day) = civil(days);
    let second = unix_s.rem_euclid(DAY_S);
    let (month_name, weekday) = (MONTHS[month as usize - 1], WEEKDAYS[days.rem_euclid(7) as usize]);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let directive = chars.next();
        out.push_str(&match directive {
            Some('Y') => year.to_string(),
            Some('y') => format!("{:02}", year.rem_euclid(100)),
            Some('m') => format!("{month:02}"),
            Some('B') => month_name.into(),
            Some('b') => month_name[..3].into(),
            Some('d') => format!("{day:02}"),
            Some('A') => weekday.into(),
            Some('a') => weekday[..3].into(),
            Some('H') => format!("{:02}", second / 3600),
            Some('M') => format!("{:02}", second / 60 % 60),
            Some('S') => format!("{:02}", second % 60),
            Some('%') => "%".into(),
            other => return Err(format!("%{}", other.map_or(String::new(), String::from))),
        });
    }
    Ok(out)
}

/// Year, month and day of a day count since 1970-01-01, by 400-year cycles that start in March,
/// so that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    const CYCLE_DAYS: i64 = 146_097;
    const MARCH_1_OF_YEAR_0: i64 = -719_468;
    let days = days - MARCH_1_OF_YEAR_0;
    let (cycle, day_of_cycle) = (days.div_euclid(CYCLE_DAYS), days.rem_euclid(CYCLE_DAYS));
    let leap_days = day_of_cycle / 1_460 - day_of_cycle / 36_524 + day_of_cycle / 146_096;
    let year_of_cycle = (day_of_cycle - leap_days) / 365;
    let day_of_year =
        day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let shifted = (5 * day_of_year + 2) / 153; // months since March
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (cycle * 400 + year_of_cycle + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_dates() {
        for (unix_s, expected) in [
            (0, "Thu Thursday 01 Jan January 01 70 1970 00:00:00 %"),
            (951_782_399, "Mon Monday 28 Feb February 02 00 2000 23:59:59 %"),
            (951_782_400, "Tue Tuesday 29 Feb February 02 00 2000 00:00:00 %"),
            (-1, "Wed Wednesday 31 Dec December 12 69 1969 23:59:59 %"),
            (4_107_542_400, "Mon Monday 01 Mar March 03 00 2100 00:00:00 %"),
        ] {
            assert_eq!(strftime("%a %A %d %b %B %m %y %Y %H:%M:%S %%", unix_s).unwrap(), expected);
        }
        assert_eq!(strftime("%Q", 0).unwrap_err(), "%Q");
        assert_eq!(strftime("%", 0).unwrap_err(), "%");
    }
}
