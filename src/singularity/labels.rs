use std::collections::BTreeMap;

use super::{Additions, definition, go_json};
use crate::error::Result;
use crate::model::{Config, OUTPUT_FORMAT, Timestamp};

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

/// The image's labels, over them those that Apptainer 1.6 makes, over those the ones asked for.
pub(super) fn merge(config: &Config, additions: &Additions<'_>) -> Labels {
    let made = [
        ("org.label-schema.schema-version", "1.0".to_owned()),
        ("org.label-schema.build-date", build_date(additions.time)),
        ("org.opencontainers.image.created", rfc_3339(additions.time)),
        // Our own key: we are neither Apptainer nor Singularity, and claim the version of neither. The version of this
        // program is not recorded: another one that writes the same bytes must write the same labels.
        ("org.label-schema.usage.sif-convert.format", OUTPUT_FORMAT.to_string()),
        ("org.label-schema.usage.singularity.deffile.bootstrap", definition::BOOTSTRAP.to_owned()),
        ("org.label-schema.usage.singularity.deffile.from", additions.reference.to_owned()),
        ("org.label-schema.build-arch", additions.architecture.to_owned()),
        ("org.opencontainers.image.architecture", additions.architecture.to_owned()),
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

/// `2025-12-02T09:05:07Z`.
fn rfc_3339(time: Timestamp) -> String {
    let (year, month, day, hour, minute, second) = time.civil();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn created_is_rfc_3339() {
        for (seconds, want) in [(0, "1970-01-01T00:00:00Z"), (1_764_666_307, "2025-12-02T09:05:07Z")] {
            assert_eq!(rfc_3339(Timestamp::from_seconds(seconds)), want);
        }
    }

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
