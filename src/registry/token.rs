use std::time::Duration;

use serde_json::Value;

use super::secret::Secret;

/// How long a token is good for whose server does not say (distribution/spec, auth/token).
const USUAL: Duration = Duration::from_secs(60);
/// Longer is as good as for ever.
const LONGEST: u64 = 365 * 24 * 60 * 60;

/// What a token server gives.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// The value of an `Authorization` header.
    pub(super) secret: Secret,
    /// How long it is good for, from now on.
    pub(super) lasts: Duration,
}

impl Token {
    /// Reads the answer of a token server: `token`, or `access_token` as OAuth calls it; some send the other one empty.
    pub(super) fn parse(body: &[u8]) -> Option<Token> {
        let document: Value = serde_json::from_slice(body).ok()?;
        let text = |key: &str| document.get(key)?.as_str().filter(|text| !text.is_empty());
        let token = text("token").or_else(|| text("access_token"))?;
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let stated = document.get("expires_in");
        let seconds = stated.and_then(Value::as_f64).or_else(|| stated?.as_str()?.parse().ok());
        let lasts = seconds.filter(|&seconds| seconds > 0.0).map(|seconds| seconds.min(LONGEST as f64));
        Some(Token {
            secret: Secret::remembered(format!("Bearer {token}")),
            lasts: lasts.map_or(USUAL, Duration::from_secs_f64),
        })
    }
}

/// What is asked of a token server: what a challenge states, and what is wanted where it does not cover that. A scope is
/// `TYPE:NAME:ACTION,…`; several are separated by spaces.
pub(super) fn scopes(wanted: &str, stated: &str) -> Vec<String> {
    let split = |scope: &str| {
        let (name, actions) = scope.rsplit_once(':').unwrap_or((scope, ""));
        (name.to_string(), actions.split(',').map(str::to_string).collect::<Vec<_>>())
    };
    let mut scopes: Vec<(String, Vec<String>)> = stated.split_ascii_whitespace().map(split).collect();
    let (name, actions) = split(wanted);
    // A registry that stands for another may file a repository under another name; it knows what reading takes.
    if !scopes.is_empty() && actions == ["pull"] {
        return stated.split_ascii_whitespace().map(str::to_string).collect();
    }
    let known = scopes.iter().position(|(other, _)| *other == name).unwrap_or_else(|| {
        scopes.push((name, Vec::new()));
        scopes.len() - 1
    });
    let listed = &mut scopes[known].1;
    // Whoever may do anything may do this, too.
    if !listed.iter().any(|action| action == "*") {
        let missing: Vec<String> = actions.into_iter().filter(|action| !listed.contains(action)).collect();
        listed.extend(missing);
    }
    scopes.into_iter().map(|(name, actions)| format!("{name}:{}", actions.join(","))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_either_name_are_taken() {
        let token = |text: &str, seconds: u64| {
            let secret = Secret::new(format!("Bearer {text}"));
            Some(Token { secret, lasts: Duration::from_secs(seconds) })
        };
        for (body, expected) in [
            (r#"{"token":"a","expires_in":300}"#, token("a", 300)),
            (r#"{"token":"","access_token":"b"}"#, token("b", 60)),
            (r#"{"token":null,"access_token":"b","expires_in":"90"}"#, token("b", 90)),
            (r#"{"token":"a","access_token":"b","expires_in":0}"#, token("a", 60)),
            (r#"{"token":"a","expires_in":-5}"#, token("a", 60)),
            (r#"{"token":"a","expires_in":1e300}"#, token("a", LONGEST)),
            (r#"{"token":""}"#, None),
            (r#"{"token":"a\nb"}"#, None),
            ("[]", None),
            ("", None),
        ] {
            assert_eq!(Token::parse(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn a_scope_covers_what_is_wanted() {
        for (wanted, stated, expected) in [
            ("repository:x:pull", "", vec!["repository:x:pull"]),
            ("repository:x:pull", "repository:x:pull", vec!["repository:x:pull"]),
            ("repository:x:pull,push", "repository:x:pull", vec!["repository:x:pull,push"]),
            ("repository:x:pull,push", "repository:x:*", vec!["repository:x:*"]),
            ("repository:x:pull", "repository:prefix/x:pull", vec!["repository:prefix/x:pull"]),
            (
                "repository:x:pull,push",
                "repository:y:pull repository:x:push",
                vec!["repository:y:pull", "repository:x:push,pull"],
            ),
        ] {
            assert_eq!(scopes(wanted, stated), expected, "{wanted} {stated}");
        }
    }
}
