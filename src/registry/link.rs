//! Where a list goes on: `Link` headers (RFC 8288), as the lists of tags and of referrers have them.

use ureq::http::HeaderMap;

/// The parameters of the address of the next page, as they are in it. The address counts for nothing else: a list goes on where
/// it began, on a server that was chosen by who asked.
pub(super) fn next_query(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all("link").into_iter().filter_map(|value| value.to_str().ok());
    let target = values.into_iter().find_map(next_target)?;
    let (_, query) = target.split('#').next()?.split_once('?')?;
    Some(query.to_string()).filter(|query| !query.is_empty())
}

/// The address of the first link of a header that is one to what is next.
fn next_target(header: &str) -> Option<&str> {
    let mut rest = header;
    loop {
        let (target, parameters) = rest.trim_start_matches([' ', '\t', ',']).strip_prefix('<')?.split_once('>')?;
        rest = parameters;
        let mut is_next = false;
        while let Some((name, value, after)) = parameter(rest) {
            rest = after;
            let mut words = value.split_ascii_whitespace();
            is_next |= name.eq_ignore_ascii_case("rel") && words.any(|word| word.eq_ignore_ascii_case("next"));
        }
        if is_next {
            return Some(target.trim());
        }
    }
}

/// Takes `; NAME=VALUE`, of which VALUE may be quoted, off the start: the name, the value and what comes after. Escapes in
/// values stay, for no relation has any.
fn parameter(text: &str) -> Option<(&str, &str, &str)> {
    let text = text.trim_start().strip_prefix(';')?;
    let (name, rest) = text.split_at(text.find(['=', ';', ',']).unwrap_or(text.len()));
    let Some(value) = rest.strip_prefix('=') else { return Some((name.trim(), "", rest)) };
    let value = value.trim_start();
    let Some(quoted) = value.strip_prefix('"') else {
        let (value, after) = value.split_at(value.find([';', ',']).unwrap_or(value.len()));
        return Some((name.trim(), value.trim(), after));
    };
    let mut is_escaped = false;
    let end = quoted.find(|character| {
        let is_end = character == '"' && !is_escaped;
        is_escaped = character == '\\' && !is_escaped;
        is_end
    });
    let (value, after) = quoted.split_at(end.unwrap_or(quoted.len()));
    Some((name.trim(), value, after.strip_prefix('"').unwrap_or(after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_of(values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("link", value.parse().unwrap());
        }
        next_query(&headers)
    }

    #[test]
    fn the_next_page_is_found_in_any_form_of_link() {
        for value in [
            "</v2/x/tags/list?n=2&last=b>; rel=\"next\"",
            "<https://elsewhere.net/other?n=2&last=b>;rel=next",
            "<?n=2&last=b#top> ; title=\"a, <b>; rel=last\" ; REL = Next",
            "</first?n=1>; rel=first, </v2/x?n=2&last=b>; type=\"a/b\"; rel=\"last next\"; title=x",
            "</a?n=1>; title=\"quote \\\" ; rel=next\"; rel=prev,</v2/x?n=2&last=b>; crossorigin; rel=next",
            ",, </b?n=2&last=b>; rel=next",
        ] {
            assert_eq!(next_of(&[value]).as_deref(), Some("n=2&last=b"), "{value}");
        }
        assert_eq!(next_of(&["</a?n=1>; rel=prev", "</a?n=2>; rel=next"]).as_deref(), Some("n=2"));
    }

    #[test]
    fn what_is_no_next_page_is_none() {
        for value in [
            "",
            "</a?n=1>; rel=prev",
            "</a?n=1>; rel=nextish",
            "</a?n=1>; title=\"rel=next\"",
            "</a?n=1>; title=\"rel=next",
            "</a>; rel=next",
            "</a?>; rel=next",
            "/a?n=1; rel=next",
            "</a?n=1",
            "</a?n=1>",
            "</a?n=1>;",
            "</a?n=1>; ; =; =\"",
            "</a?n=1> rel=next",
        ] {
            assert_eq!(next_of(&[value]), None, "{value}");
        }
    }
}
