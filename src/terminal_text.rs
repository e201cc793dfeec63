//! Text from files, servers and users, escaped for safe printing.
//!
//! Terminals interpret control characters. A model name with an escape sequence can hide text, rename the window or worse. Text
//! with changes of writing direction can look different from its content. Everything that the program prints is escaped by
//! [`escape`], or through [`escape_json`] if it is JSON.

/// Replaces each control character by its escape, such as `\u{1b}`. Line breaks and tabs are kept.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => safe.push(character),
            // Windows line break.
            '\r' => safe.push_str("\\r"),
            _ if is_obeyed(character) => safe.extend(character.escape_unicode()),
            _ => safe.push(character),
        }
    }
    safe
}

/// Escapes a JSON document: control characters become `\u001b`, so that the document has the same value.
#[must_use]
pub fn escape_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        // Below 0x20, JSON only contains white space between values; strings are already escaped.
        if is_obeyed(character) && !matches!(character, '\n' | '\r' | '\t') {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            safe.push(character);
        }
    }
    safe
}

/// Whether a terminal interprets the character as a command (C0, DEL, C1), a change of direction or a line break.
fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{061c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_replaces_control_characters() {
        let cases = [
            (
                "a\x1b[31mb\nc\td\r",
                r"a\u{1b}[31mb
c	d\r",
            ),
            ("\u{9b}2J\u{7f}\0", r"\u{9b}2J\u{7f}\u{0}"),
            ("bert\u{202e}gpj\u{2066}", r"bert\u{202e}gpj\u{2066}"),
            ("東京 “é” 👍\u{200d}", "東京 “é” 👍\u{200d}"),
        ];
        for (text, safe) in cases {
            assert_eq!(escape(text), safe);
        }
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        let value = serde_json::json!({"a\u{9b}": "b\x1b\u{202e}\u{7f}\n 東京"});
        let json = serde_json::to_string_pretty(&value).unwrap();
        let safe = escape_json(&json);
        assert!(safe.chars().all(|it| it == '\n' || !is_obeyed(it)), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
    }
}
