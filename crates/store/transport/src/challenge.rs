//! `WWW-Authenticate` (RFC 9110 section 11.6.1): several challenges, in one header or in several.

/// Longest header value that is read.
const MAX_HEADER: usize = 8 << 10;
/// Most challenges, and most parameters of one.
const MAX_ITEMS: usize = 16;

/// How a registry wants to be told who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer(Bearer),
}

/// Where tokens come from (distribution `spec/auth/token.md`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bearer {
    pub(crate) realm: String,
    pub(crate) service: Option<String>,
    pub(crate) scope: Option<String>,
}

/// The best challenge of these header values: Bearer before Basic; others are not spoken. Malformed parts are
/// skipped: a registry may offer what we do not understand beside what we do.
pub(crate) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = false;
    for header in headers
        .take(MAX_ITEMS)
        .filter(|header| header.len() <= MAX_HEADER)
    {
        for (scheme, parameters) in parse(header) {
            let parameter = |name: &str| {
                let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.clone())
            };
            if scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameter("realm")
            {
                return Some(Challenge::Bearer(Bearer {
                    realm,
                    service: parameter("service"),
                    scope: parameter("scope"),
                }));
            }
            basic |= scheme.eq_ignore_ascii_case("basic");
        }
    }
    basic.then_some(Challenge::Basic)
}

type Parameters = Vec<(String, String)>;

fn parse(header: &str) -> Vec<(&str, Parameters)> {
    let mut out: Vec<(&str, Parameters)> = Vec::new();
    let mut rest = header;
    while out.len() < MAX_ITEMS {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            break;
        }
        let spaced = after.trim_start_matches([' ', '\t']);
        match spaced.strip_prefix('=') {
            // `name=value` belongs to the last scheme; a token68 (`Negotiate abc==`) ends up here too, harmlessly.
            Some(value) => {
                let (value, after) = quoted_or_token(value.trim_start_matches([' ', '\t']));
                if let Some((_, parameters)) = out.last_mut()
                    && parameters.len() < MAX_ITEMS
                {
                    parameters.push((word.to_owned(), value));
                }
                rest = after.trim_start_matches('=');
            }
            None => {
                out.push((word, Vec::new()));
                rest = after;
            }
        }
    }
    out
}

/// RFC 9110 section 5.6.2.
fn token(text: &str) -> (&str, &str) {
    let end = text
        .bytes()
        .position(|b| !(b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&b)))
        .unwrap_or(text.len());
    text.split_at(end)
}

fn quoted_or_token(text: &str) -> (String, &str) {
    let Some(inside) = text.strip_prefix('"') else {
        let (word, rest) = token(text);
        return (word.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = inside.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &inside[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer(Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }))
    }

    #[test]
    fn challenges_of_known_registries_are_understood() {
        let one = |header: &str| choose(std::iter::once(header));
        assert_eq!(
            one(
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/debian:pull""#
            ),
            bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:library/debian:pull")
            )
        );
        assert_eq!(
            one("Basic realm=\"Registry, \\\"quoted\\\"\""),
            Some(Challenge::Basic)
        );
        assert_eq!(
            one(r#"Basic realm="a, b", bearer Realm = "https://x/t" , error=invalid_token"#),
            bearer("https://x/t", None, None)
        );
        assert_eq!(one("Negotiate YWJj=="), None);
        assert_eq!(one("Negotiate YWJj==, Basic realm=x"), Some(Challenge::Basic));
        assert_eq!(one("Bearer"), None);
        let two = ["Basic realm=x", "Bearer realm=\"https://y/t\""];
        assert_eq!(choose(two.into_iter()), bearer("https://y/t", None, None));
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_panic_and_within_bounds(header in "[ -~]{0,300}|\\PC{0,60}") {
            if let Some(Challenge::Bearer(bearer)) = choose(std::iter::once(header.as_str())) {
                prop_assert!(bearer.realm.len() <= header.len());
            }
            prop_assert!(parse(&header).len() <= MAX_ITEMS);
        }
    }
}
