use std::collections::BTreeSet;

/// How many names are offered.
const OFFERED_MAX: usize = 5;

/// Names of images that someone who wrote `word` may have meant, likeliest first.
pub(super) fn near(word: &str, names: &[String]) -> Vec<String> {
    let wanted = Parts::of(word);
    let ranked: BTreeSet<(usize, usize, &String)> = names
        .iter()
        .filter(|name| *name != "<none>:<none>")
        .filter_map(|name| {
            let (rank, distance) = wanted.likeness(&Parts::of(name))?;
            Some((rank, distance, name))
        })
        .collect();
    ranked.into_iter().take(OFFERED_MAX).map(|(_, _, name)| name.clone()).collect()
}

/// A name taken apart, in lower case.
struct Parts {
    repository: String,
    last: String,
    whole: String,
}

impl Parts {
    fn of(name: &str) -> Parts {
        let name = name.to_lowercase();
        let whole = ["docker.io/", "library/"]
            .into_iter()
            .fold(name.as_str(), |name, prefix| name.strip_prefix(prefix).unwrap_or(name))
            .to_string();
        let without_digest = whole.split('@').next().unwrap_or(&whole);
        let repository = match without_digest.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => repository.to_string(),
            _ => without_digest.to_string(),
        };
        let last = repository.rsplit('/').next().unwrap_or(&repository).to_string();
        Parts { repository, last, whole }
    }

    /// How alike two names are: a rank, and within it a distance; less is more. `None` where they have nothing in common.
    fn likeness(&self, other: &Parts) -> Option<(usize, usize)> {
        let distance = distance(&self.whole, &other.whole);
        let contains = |one: &str, other: &str| one.len() > 2 && other.contains(one);
        if self.repository == other.repository {
            Some((0, distance))
        } else if self.last == other.last {
            Some((1, distance))
        } else if contains(&self.last, &other.last) || contains(&other.last, &self.last) {
            Some((2, distance))
        } else {
            let typos = self::distance(&self.last, &other.last);
            (typos <= (self.last.len() / 3).clamp(1, 3)).then_some((3, distance))
        }
    }
}

/// How many letters must be put in, taken out or changed to make one word of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, &there) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != there);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likely_names_come_first() {
        let names = ["app:1", "app:2", "ghcr.io/org/app:1", "apps:1", "apq:1", "debian:12", "<none>:<none>"];
        let names: Vec<String> = names.map(String::from).into();
        assert_eq!(near("app", &names), ["app:1", "app:2", "ghcr.io/org/app:1", "apps:1", "apq:1"]);
        assert_eq!(near("docker.io/library/debian:11", &names), ["debian:12"]);
        assert_eq!(near("debain", &names), ["debian:12"]);
        assert!(near("postgres", &names).is_empty());
    }

    #[test]
    fn distances() {
        for (one, other, expected) in
            [("", "", 0), ("abc", "abc", 0), ("abc", "abd", 1), ("abc", "", 3), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
    }
}
