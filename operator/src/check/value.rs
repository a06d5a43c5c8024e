//! Client ids and client secrets that cannot be what OfficeRnD shows.

/// What is wrong with a client id or a client secret, without the value; `None` if nothing is.
/// RFC 6749 appendix A.1 and A.2 permit printable ASCII. White space and quotes around the value,
/// and placeholders, are permitted too, but come from a shell, an editor or a template.
pub(super) fn problem(value: &str) -> Option<&'static str> {
    // The component does the same.
    let value = value.trim();
    let has = |is_one: fn(char) -> bool| value.contains(is_one);
    if is_placeholder(value) {
        Some("looks like a placeholder that was not replaced, expected the value itself")
    } else if value.starts_with(is_quote) || value.ends_with(is_quote) {
        Some("begins or ends with a quotation mark, expected the value without quotes")
    } else if has(is_invisible) {
        Some("has an invisible character, such as a byte order mark or a zero-width space, expected printable ASCII")
    } else if has(|c| matches!(c, '\n' | '\r')) {
        Some("has a line break, expected one line")
    } else if has(char::is_whitespace) {
        Some("has white space within, expected none")
    } else if has(|c| !matches!(c, '!'..='~')) {
        Some("has a character that is not printable ASCII, expected only such (RFC 6749 appendix A)")
    } else {
        None
    }
}

/// `{{ NAME }}`, `${NAME}`, `$(command)`, `$NAME`, `%NAME%` or `<NAME>`.
fn is_placeholder(value: &str) -> bool {
    let is_name = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let within = |begin: char, end: char| value.strip_prefix(begin).and_then(|rest| rest.strip_suffix(end));
    ["{{", "}}", "${", "$("].iter().any(|mark| value.contains(mark))
        || value.strip_prefix('$').is_some_and(is_name)
        || within('%', '%').is_some_and(is_name)
        || within('<', '>').is_some()
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '`' | '\u{ab}' | '\u{bb}' | '\u{2018}'..='\u{201f}')
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_that_officernd_cannot_have_shown_is_a_problem() {
        let check = |values: &[&str], expected: Option<&str>| {
            for value in values {
                let found = problem(value);
                assert_eq!(found.is_some(), expected.is_some(), "{value:?}: {found:?}");
                assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()), "{value:?}: {found:?}");
            }
        };
        check(
            &[
                "5f3c9a",
                "aB3-._~+/=",
                "a$b",
                "a'b",
                "50%",
                "a%20b",
                "<",
                "  spaces around \t\n".trim_end_matches("around \t\n"),
                "key\r\n",
            ],
            None,
        );
        check(
            &["{{ client_id }}", "{{id}}", "x{{", "$ID", "${ID}", "$(cat id)", "%ID%", "<client id>"],
            Some("placeholder"),
        );
        check(&["\"id\"", "'id'", "`id`", "\"id", "id'", "\u{201c}id\u{201d}", " \"id\" "], Some("quotation mark"));
        check(&["\u{feff}id", "i\u{200b}d", "id\u{200b}", "id\u{feff}", "i\u{ad}d"], Some("invisible"));
        check(&["i\nd", "i\r\nd"], Some("line break"));
        check(&["i d", "i\td", "i\u{a0}d"], Some("white space"));
        check(&["i\u{0}d", "caf\u{e9}", "i\u{7f}d", "id\u{2026}"], Some("printable ASCII"));
    }
}
