use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::model::Quoted;

/// Shorter values are not secrets, and would be found everywhere.
const SECRET_CHARACTERS_MIN: usize = 3;
/// Shorter values are only taken for the secret where they stand alone.
const STANDS_ALONE_BELOW: usize = 6;
/// What stands in place of a secret.
const REDACTED: &str = "***";

/// What must not be shown, in every spelling that it may be met in. One list for the process: a secret that one conversion
/// uses is a secret to all that is printed.
static KNOWN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// A password or token: whatever prints it prints `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// Hides `text`, and has `redacted` hide it wherever others repeat it.
    pub fn remembered(text: impl Into<String>) -> Self {
        let text = text.into();
        remember(&text);
        Secret(text)
    }

    /// What is hidden: to be sent to whom it belongs, never to be shown.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// Takes a value for a secret from now on. Of the value of an `Authorization` header it is what follows the scheme.
fn remember(text: &str) {
    let bare = text.strip_prefix("Basic ").or_else(|| text.strip_prefix("Bearer ")).unwrap_or(text);
    if bare.chars().count() < SECRET_CHARACTERS_MIN {
        return;
    }
    let inner = |quoted: String| quoted[1..quoted.len() - 1].to_string();
    let spellings = [
        bare.to_string(),
        inner(format!("{bare:?}")),
        inner(Quoted(bare.as_bytes()).to_string()),
        utf8_percent_encode(bare, NON_ALPHANUMERIC).to_string(),
    ];
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).extend(spellings);
}

/// Takes the password in an address that somebody gave us for a secret: `USER:PASSWORD@HOST`, with a scheme or `NAME=` before
/// it or not. Of an address without a colon the user may be a token, but not of one for ssh.
#[cfg(feature = "program")]
pub(crate) fn remember_userinfo(address: &str) {
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None => ("", address.split_once('=').map_or(address, |(_, rest)| rest)),
    };
    // `NAME:TAG@sha256:HEX` has no user.
    let mut ends = rest.match_indices('@').map(|(at, _)| at).filter(|at| !rest[at + 1..].starts_with("sha"));
    let Some(userinfo) = ends.next_back().map(|end| &rest[..end]) else { return };
    let password = match userinfo.split_once(':') {
        Some((_, password)) => password,
        None if matches!(scheme, "" | "ssh") => return,
        None => userinfo,
    };
    remember(password);
    if let Ok(decoded) = percent_encoding::percent_decode_str(password).decode_utf8() {
        remember(&decoded);
    }
}

/// The text with every secret that is known replaced by `***`, however it came there.
pub(crate) fn redacted(text: &str) -> String {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut secrets: Vec<&String> = known.iter().filter(|secret| text.contains(secret.as_str())).collect();
    // What holds another one goes first.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.into_iter().fold(text.to_string(), |text, secret| without(&text, secret))
}

fn without(text: &str, secret: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = 0;
    for (at, _) in text.match_indices(secret) {
        let end = at + secret.len();
        let is_word = |character: Option<char>| character.is_some_and(char::is_alphanumeric);
        let stands_alone = !is_word(text[..at].chars().next_back()) && !is_word(text[end..].chars().next());
        if secret.len() >= STANDS_ALONE_BELOW || stands_alone {
            safe.push_str(&text[rest..at]);
            safe.push_str(REDACTED);
            rest = end;
        }
    }
    safe.push_str(&text[rest..]);
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_prints_it() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?} {:#?}", Some(&secret)), "*** *** Some(\n    ***,\n)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn secrets_are_found_in_every_spelling() {
        Secret::remembered("Basic c2VjcmV0LTE6c2VjcmV0");
        Secret::remembered("pass\"word/se cret\n");
        for (text, safe) in [
            ("you sent Basic c2VjcmV0LTE6c2VjcmV0!", "you sent Basic ***!"),
            ("xc2VjcmV0LTE6c2VjcmV0x", "x***x"),
            (r#""pass\"word/se cret\n""#, r#""***""#),
            ("pass%22word%2Fse%20cret%0A", "***"),
            ("pass\"word", "pass\"word"),
        ] {
            assert_eq!(redacted(text), safe);
        }
        Secret::remembered("q9z");
        assert_eq!(redacted("q9z:q9zx aq9z q9z"), "***:q9zx aq9z ***");
        Secret::remembered("ab");
        assert_eq!(redacted("ab"), "ab");
    }

    #[test]
    fn passwords_in_addresses_are_remembered() {
        for (address, secret) in [
            ("tcp://u:in-docker-host@h:1", "in-docker-host"),
            ("docker://u:in-a-reference@h/x:1", "in-a-reference"),
            ("docker://u:with/sl@sh@h/x", "with/sl@sh"),
            ("docker.io=u:in-a-mirror=x@h", "in-a-mirror=x"),
            ("u:in-insecure@h", "in-insecure"),
            ("http://u:per%20cent-ed@h", "per cent-ed"),
            ("https://token-as-user@h", "token-as-user"),
        ] {
            remember_userinfo(address);
            assert_eq!(redacted(&format!("<{secret}>")), "<***>", "{address}");
        }
        for address in ["docker://h/x:the-tag@sha256:00", "ssh://somebody@far", "docker://h:5000/plain-name"] {
            remember_userinfo(address);
        }
        let plain = "the-tag somebody 5000/plain-name";
        assert_eq!(redacted(plain), plain);
    }
}
