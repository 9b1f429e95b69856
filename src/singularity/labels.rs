use std::collections::BTreeMap;

use super::{Additions, definition, go_json};
use crate::error::Result;
use crate::model::{Config, Timestamp};

const WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
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

/// Labels in the order of their names.
pub(super) type Labels = BTreeMap<String, String>;

/// The image's labels, over them those of `specs/sif.md` section 2.7, over those the ones asked for.
pub(super) fn merge(config: &Config, additions: &Additions<'_>) -> Labels {
    let made = [
        ("org.label-schema.schema-version", "1.0".to_owned()),
        ("org.label-schema.build-date", build_date(additions.time)),
        // Our own key: we are neither Apptainer nor Singularity, and claim the version of neither.
        ("org.label-schema.usage.sif-convert.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("org.label-schema.usage.singularity.deffile.bootstrap", definition::BOOTSTRAP.to_owned()),
        ("org.label-schema.usage.singularity.deffile.from", additions.reference.to_owned()),
        ("org.label-schema.build-arch", additions.architecture.to_owned()),
    ];
    let mut labels = config.labels().clone();
    labels.extend(made.map(|(name, value)| (name.to_owned(), value)));
    labels.extend(additions.labels.iter().cloned());
    labels
}

/// The text of `labels.json`.
pub(super) fn text(labels: &Labels) -> Result<String> {
    go_json::indented(labels)
}

/// `Tuesday_2_December_2025_9:5:7_UTC`: numbers are not padded.
fn build_date(time: Timestamp) -> String {
    let (year, month, day, hour, minute, second) = time.civil();
    // 1970-01-01 was a Thursday.
    let weekday = WEEKDAYS[time.seconds.div_euclid(86_400).rem_euclid(7) as usize];
    let month = MONTHS[month as usize - 1];
    format!("{weekday}_{day}_{month}_{year}_{hour}:{minute}:{second}_UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_date_is_unpadded_utc() {
        for (seconds, want) in [
            (0, "Thursday_1_January_1970_0:0:0_UTC"),
            (1_764_666_307, "Tuesday_2_December_2025_9:5:7_UTC"),
            (-1, "Wednesday_31_December_1969_23:59:59_UTC"),
            (951_827_696, "Tuesday_29_February_2000_12:34:56_UTC"),
        ] {
            assert_eq!(build_date(Timestamp::from_seconds(seconds)), want);
        }
    }
}
