//! Logins for web servers, from the file that curl, wget and ftp read (netrc(5)).

use std::iter::Peekable;
use std::str::SplitWhitespace;

use super::secret::Secret;
use super::settings::Login;

/// The login for `host`: that of its `machine`, else the `default`.
pub(super) fn login(text: &str, host: &str) -> Option<Login> {
    let text = without_macros(text);
    let mut words = text.split_whitespace().peekable();
    let mut fallback = None;
    while let Some(word) = words.next() {
        match word {
            "machine" => {
                let is_host = words.next().is_some_and(|name| name.eq_ignore_ascii_case(host));
                let found = entry(&mut words);
                if is_host {
                    return found;
                }
            }
            "default" => fallback = entry(&mut words),
            _ => {}
        }
    }
    fallback
}

/// Reads up to the next entry.
fn entry(words: &mut Peekable<SplitWhitespace<'_>>) -> Option<Login> {
    let (mut username, mut password) = (None, None);
    while let Some(word) = words.next_if(|word| !matches!(*word, "machine" | "default")) {
        let value = words.next()?;
        match word {
            "login" => username = Some(value.to_string()),
            "password" => password = Some(Secret::new(value)),
            _ => {}
        }
    }
    Some(Login { username: username?, password: password? })
}

/// A macro begins with `macdef` and ends with an empty line; comments begin a line with `#`.
fn without_macros(text: &str) -> String {
    let mut is_inside = false;
    let kept = text.lines().filter(|line| {
        is_inside = (is_inside || line.trim_start().starts_with("macdef")) && !line.trim().is_empty();
        !is_inside && !line.trim_start().starts_with('#')
    });
    kept.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_in_any_layout() {
        let text = "# machine a login no password no\nmachine b.org login u password p#1\nmachine c.org\n\tlogin v\n\
                    \taccount x\n\tpassword q\nmacdef init\nmachine d.org login evil password evil\n\nmachine e.org login e\n\
                    default login anonymous password me@x\n";
        let of = |host: &str| login(text, host).map(|it| format!("{}:{}", it.username, it.password.expose()));
        assert_eq!(of("B.org").as_deref(), Some("u:p#1"));
        assert_eq!(of("c.org").as_deref(), Some("v:q"));
        assert_eq!(of("d.org").as_deref(), Some("anonymous:me@x"));
        assert_eq!(of("e.org"), None, "no password is not somebody else's");
        assert_eq!(login("machine x login u password p", "y"), None);
        assert_eq!(login("machine x login", "x"), None);
        assert_eq!(login("", "x"), None);
    }
}
