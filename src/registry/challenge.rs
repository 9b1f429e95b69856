/// What a registry wants to see before it answers (the header `WWW-Authenticate`, RFC 9110, section 11.6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token, to be had from `realm` (distribution/spec, auth/token).
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
    /// A user name and a password.
    Basic,
}

impl Challenge {
    /// The challenge to answer, of all that the headers hold: a token where there is a choice.
    pub(super) fn of<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
        let challenges: Vec<Challenge> = headers.flat_map(parse).collect();
        let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        bearer.or(challenges.first()).cloned()
    }
}

fn parse(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let end = rest.find([' ', ',']).unwrap_or(rest.len());
        let scheme = rest[..end].to_ascii_lowercase();
        let (parameters, after) = parameters(&rest[end..]);
        rest = after;
        let value = |name: &str| {
            parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).filter(|it| !it.is_empty())
        };
        match (scheme.as_str(), value("realm")) {
            ("bearer", Some(realm)) => {
                found.push(Challenge::Bearer { realm, service: value("service"), scope: value("scope") });
            }
            ("basic", _) => found.push(Challenge::Basic),
            _ => {}
        }
    }
    found
}

/// `name=value, name="value"`, up to where another scheme begins; and what follows.
fn parameters(text: &str) -> (Vec<(String, String)>, &str) {
    let mut parameters = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', ',', '\t']);
        let word_end = rest.find(['=', ' ', ',', '"']).unwrap_or(rest.len());
        let after = rest[word_end..].trim_start_matches(' ');
        let Some(value) = after.strip_prefix('=').filter(|_| word_end > 0) else {
            // No parameter: the name of the next scheme, the end, or nonsense, which is passed over.
            return (parameters, if word_end == 0 { "" } else { rest });
        };
        let name = rest[..word_end].to_ascii_lowercase();
        let (value, after) = value_of(value.trim_start_matches(' '));
        parameters.push((name, value));
        rest = after;
    }
}

fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_string(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(header: &str) -> Option<Challenge> {
        Challenge::of(std::iter::once(header))
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let text = |it: &str| it.to_string();
        Some(Challenge::Bearer { realm: text(realm), service: service.map(text), scope: scope.map(text) })
    }

    #[test]
    fn what_registries_send_is_understood() {
        assert_eq!(
            of(
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/debian:pull,push""#
            ),
            bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:library/debian:pull,push")
            )
        );
        assert_eq!(of(r#"bearer Realm = "https://x/t" , service=y"#), bearer("https://x/t", Some("y"), None));
        assert_eq!(of(r#"Basic realm="a \"b\", c", Bearer realm="https://x/t""#), bearer("https://x/t", None, None));
        assert_eq!(of(r#"Basic realm="basic-realm""#), Some(Challenge::Basic));
        assert_eq!(of("Basic"), Some(Challenge::Basic));
        assert_eq!(Challenge::of(["Negotiate", "Basic realm=x"].into_iter()), Some(Challenge::Basic));
    }

    #[test]
    fn nonsense_is_no_challenge() {
        for header in
            ["", "Bearer", "Bearer service=x", "Negotiate abc==", "=", "\"", "Bearer realm=\"", ",,,", "Bearer =x"]
        {
            assert_eq!(of(header), None, "{header:?}");
        }
    }
}
