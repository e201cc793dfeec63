//! Text from files, servers and users, made safe to print.
//!
//! A terminal obeys control characters: a model's name that contains an escape sequence can hide text, rename the window or worse. Text
//! in which the direction of writing changes can show something else than it says. Everything that the program prints goes through
//! [`escape`], or through [`escape_json`] if it is JSON.

/// Replaces each character that a terminal would obey by its escape, such as `\u{1b}`. Line breaks and tabs stay.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => safe.push(character),
            // A line break of Windows.
            '\r' => safe.push_str("\\r"),
            _ if is_obeyed(character) => safe.extend(character.escape_unicode()),
            _ => safe.push(character),
        }
    }
    safe
}

/// The same for a JSON document: what a terminal would obey stands in it as `\u001b`, so that it still reads as the same value.
#[must_use]
pub fn escape_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        // Below 0x20 JSON has only the white space between its values; strings have escapes already.
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

/// Whether a terminal takes the character for a command (C0, DEL, C1) or lets it change the direction or the breaks of lines.
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
    fn escape_replaces_what_terminals_obey() {
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
