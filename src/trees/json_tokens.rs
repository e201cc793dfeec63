//! JSON with the bare tokens `NaN`, `Infinity` and `-Infinity`, which XGBoost and Python's `json` write for floats that are not finite.

use std::borrow::Cow;

/// The tokens. A token that starts like another one comes first.
const TOKENS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];

/// The same document as standard JSON: each token outside of strings becomes `null`.
pub(super) fn standard_json(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !TOKENS[1..].iter().any(|token| memchr::memmem::find(bytes, token).is_some()) {
        return Cow::Borrowed(bytes);
    }
    let mut standard = Vec::with_capacity(bytes.len() + bytes.len() / 8);
    let mut rest = bytes;
    let mut in_string = false;
    while let Some((&byte, after)) = rest.split_first() {
        if !in_string && let Some(token) = TOKENS.iter().find(|token| rest.starts_with(token)) {
            standard.extend_from_slice(b"null");
            rest = &rest[token.len()..];
            continue;
        }
        standard.push(byte);
        rest = after;
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                if let Some((&escaped, after)) = rest.split_first() {
                    standard.push(escaped);
                    rest = after;
                }
            }
            _ => {}
        }
    }
    Cow::Owned(standard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_outside_of_strings_become_null() {
        for (text, expected) in [
            ("[1,2]", "[1,2]"),
            ("[NaN,-1,Infinity,-Infinity]", "[null,-1,null,null]"),
            (
                r#"{"NaN":NaN,"a\"NaN":"Infinity","b\\":NaN}"#,
                r#"{"NaN":null,"a\"NaN":"Infinity","b\\":null}"#,
            ),
            (r#""NaN\"#, r#""NaN\"#),
        ] {
            assert_eq!(standard_json(text.as_bytes()), expected.as_bytes());
        }
    }
}
