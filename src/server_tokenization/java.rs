//! The character classes of Java's `Character` and `String`, which differ from those of Rust, Python and regular expressions.

use icu_properties::props::{GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointMapDataBorrowed};

const CATEGORIES: CodePointMapDataBorrowed<'static, GeneralCategory> =
    CodePointMapData::<GeneralCategory>::new();

/// The general category of a character (`Character.getType`).
pub(super) fn category(c: char) -> GeneralCategory {
    CATEGORIES.get(c)
}

/// `Character.isWhitespace`: separators except the no-break spaces, and some control characters.
pub(super) fn is_whitespace(c: char) -> bool {
    match c {
        '\t'..='\r' | '\u{1C}'..='\u{1F}' => true,
        '\u{A0}' | '\u{2007}' | '\u{202F}' => false,
        _ => GeneralCategoryGroup::Separator.contains(category(c)),
    }
}

/// `Character.isLetter(char)`: false for characters beyond U+FFFF, which `char` splits into two surrogates.
pub(super) fn is_letter(c: char) -> bool {
    is_one_unit(c) && GeneralCategoryGroup::Letter.contains(category(c))
}

/// `Character.isDigit(char)`: decimal digits up to U+FFFF.
pub(super) fn is_digit(c: char) -> bool {
    is_one_unit(c) && category(c) == GeneralCategory::DecimalNumber
}

/// Whether Java stores the character as one `char`.
pub(super) fn is_one_unit(c: char) -> bool {
    u32::from(c) <= 0xFFFF
}

/// The length of a text in Java: its UTF-16 code units.
pub(super) fn length(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// `Character.toLowerCase` on each character: one character for one, whatever the context.
pub(super) fn lower_case(text: &str) -> String {
    text.chars().map(|c| c.to_lowercase().next().unwrap_or(c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whitespace_excludes_no_break_spaces() {
        assert!(
            [' ', '\t', '\u{B}', '\u{1F}', '\u{3000}', '\u{2028}'].into_iter().all(is_whitespace)
        );
        assert!(
            !['\u{A0}', '\u{2007}', '\u{202F}', '\u{200B}', '\u{85}']
                .into_iter()
                .any(is_whitespace)
        );
    }

    #[test]
    fn letters_and_digits_beyond_the_basic_plane_are_neither() {
        assert!(is_letter('é') && is_letter('中') && !is_letter('𝒳') && !is_letter('1'));
        assert!(is_digit('٣') && !is_digit('²') && !is_digit('𝟘') && !is_digit('Ⅳ'));
    }

    #[test]
    fn lower_case_replaces_one_character_by_one() {
        assert_eq!(lower_case("İΣ"), "iσ");
    }
}
