//! Scripts of Unicode, such as Latin and Cyrillic, and the characters of texts that are written in them.

mod languages;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use icu_properties::props::Script;
use icu_properties::{CodePointMapData, PropertyNamesLong, PropertyParser};

/// A set of scripts, which is not empty.
///
/// Texts of these scripts consist of letters of the scripts, of ASCII, and of characters that belong to no script or to several: digits,
/// punctuation, symbols, emoji and combining marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scripts(BTreeMap<&'static str, Script>);

/// Why scripts are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptsError {
    /// The list is empty.
    #[error("the list is empty")]
    Empty,
    /// An item of the list is empty.
    #[error("the list has an empty item: write the names with one comma between them")]
    EmptyItem,
    /// A script is not known.
    #[error("{}", unknown_script(.0))]
    Script(String),
    /// A language is not known.
    #[error("{}", unknown_language(.0))]
    Language(String),
}

impl Scripts {
    /// The scripts of languages, which are separated by commas: codes of ISO 639 such as `de`, or tags of BCP 47 such as `sr-Latn`.
    ///
    /// # Errors
    /// [`ScriptsError`] if the script of a language is not known, or the list is empty.
    pub fn of_languages(list: &str) -> Result<Self, ScriptsError> {
        Self::of(list, |tag| {
            languages::scripts_of(tag).ok_or_else(|| ScriptsError::Language(tag.to_owned()))
        })
    }

    /// The scripts of both sets.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The names of the scripts in Unicode, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    /// Whether texts of the scripts contain a character.
    #[must_use]
    pub fn contains(&self, c: char) -> bool {
        c.is_ascii() || {
            let script = script(c);
            is_shared(script) || self.0.values().any(|other| *other == script)
        }
    }

    /// Whether a text consists of characters of the scripts.
    #[must_use]
    pub fn contain(&self, text: &str) -> bool {
        text.chars().all(|c| self.contains(c))
    }

    /// The characters of texts that are assigned in Unicode, except ASCII.
    pub fn characters(&self) -> impl Iterator<Item = char> {
        let assigned = |c: &char| script(*c) != Script::Unknown && !c.is_ascii();
        ('\0'..=char::MAX).filter(assigned).filter(|c| self.contains(*c))
    }

    fn of(
        list: &str,
        scripts: impl Fn(&str) -> Result<Vec<Script>, ScriptsError>,
    ) -> Result<Self, ScriptsError> {
        let mut found = BTreeMap::new();
        // A comma at the end is allowed.
        let list = list.trim();
        let list = list.strip_suffix(',').unwrap_or(list);
        if list.trim_matches([',', ' ']).is_empty() {
            return Err(ScriptsError::Empty);
        }
        for name in list.split(',').map(str::trim) {
            if name.is_empty() {
                return Err(ScriptsError::EmptyItem);
            }
            found.extend(scripts(name)?.into_iter().map(|script| (long_name(script), script)));
        }
        Ok(Self(found))
    }
}

impl FromStr for Scripts {
    type Err = ScriptsError;

    /// Reads names that are separated by commas: those of Unicode such as `Latin`, or codes of ISO 15924 such as `Latn`.
    fn from_str(list: &str) -> Result<Self, ScriptsError> {
        Self::of(list, |name| named(name).ok_or_else(|| ScriptsError::Script(name.to_owned())))
    }
}

impl fmt::Display for Scripts {
    /// Writes the names separated by commas, without blanks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(","))
    }
}

/// The scripts of a name in Unicode or of a code of ISO 15924, in any case. Some codes stand for several scripts.
fn named(name: &str) -> Option<Vec<Script>> {
    match name.to_lowercase().as_str() {
        "hans" | "hant" => Some(vec![Script::Han]),
        "jpan" | "japanese" => Some(vec![Script::Han, Script::Hiragana, Script::Katakana]),
        "kore" | "korean" => Some(vec![Script::Hangul, Script::Han]),
        "hrkt" => Some(vec![Script::Hiragana, Script::Katakana]),
        name => {
            let script = PropertyParser::<Script>::new().get_loose(name)?;
            (!is_shared(script)).then(|| vec![script])
        }
    }
}

fn unknown_script(name: &str) -> String {
    let known = languages::scripts().join(", ");
    format!(
        "{name:?} is not the name of a script; use names of Unicode or codes of ISO 15924, such as {known}"
    )
}

fn unknown_language(tag: &str) -> String {
    let known = languages::codes().join(", ");
    format!("the script of the language {tag:?} is not known; name the script, or one of {known}")
}

/// Whether characters with this property belong to no script or to several.
fn is_shared(script: Script) -> bool {
    matches!(script, Script::Common | Script::Inherited | Script::Unknown)
}

fn script(c: char) -> Script {
    CodePointMapData::<Script>::new().get(c)
}

fn long_name(script: Script) -> &'static str {
    PropertyNamesLong::<Script>::new().get(script).unwrap_or("Unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(scripts: Result<Scripts, ScriptsError>) -> String {
        scripts.map_or_else(|error| error.to_string(), |scripts| scripts.to_string())
    }

    #[test]
    fn scripts_have_names_and_codes_in_any_case() {
        for (list, expected) in [
            ("latin", "Latin"),
            ("Cyrl, LATN,", "Cyrillic,Latin"),
            ("jpan", "Han,Hiragana,Katakana"),
            ("Kore", "Han,Hangul"),
            ("old-italic", "Old_Italic"),
            ("", "the list is empty"),
            (" , ", "the list is empty"),
            (
                "latin,,cyrillic",
                "the list has an empty item: write the names with one comma between them",
            ),
        ] {
            assert_eq!(names(list.parse()), expected, "{list}");
        }
        for unknown in ["english", "common", "zinh", "zzzz", "é"] {
            let message = names(unknown.parse());
            assert!(message.contains(&format!("{unknown:?}")), "{message}");
            assert!(message.contains("Latin, "), "{message}");
        }
    }

    #[test]
    fn languages_have_scripts_by_code_and_tag() {
        for (list, expected) in [
            ("en,de,fr", "Latin"),
            ("ja", "Han,Hiragana,Katakana"),
            ("ko", "Han,Hangul"),
            ("zh-CN", "Han"),
            ("sr", "Cyrillic,Latin"),
            ("sr-Latn", "Latin"),
            ("sr_Cyrl_RS,el", "Cyrillic,Greek"),
            ("PT-br", "Latin"),
            ("en-x-abcd", "Latin"),
        ] {
            assert_eq!(names(Scripts::of_languages(list)), expected, "{list}");
        }
        for unknown in ["english", "xx", "sr-Abcd"] {
            let message = names(Scripts::of_languages(unknown));
            assert!(message.contains(&format!("{unknown:?}")), "{message}");
            assert!(message.contains("de, ") && message.contains("zu"), "{message}");
        }
    }

    #[test]
    fn texts_contain_ascii_and_characters_of_no_script() {
        let of = |list: &str| list.parse::<Scripts>().unwrap();
        assert!(of("latin").contain("Ünïcödé, ½ × 3 µm – „ja“ 😀 e\u{301} ▁ \u{E000}"));
        for text in ["Ω", "д", "中", "ש", "한", "か"] {
            assert!(!of("latin").contain(text), "{text}");
        }
        assert!(of("cyrillic").contain("версия 1.2 (beta)") && !of("cyrillic").contain("é"));
        assert!(of("jpan").contain("データ、東京。ー"));
        let all = of("greek").and(of("latin"));
        assert!(all.contain("Ωé") && all.to_string() == "Greek,Latin");
    }

    #[test]
    fn characters_are_those_of_the_texts() {
        let greek: Vec<char> = "greek".parse::<Scripts>().unwrap().characters().collect();
        assert!(greek.contains(&'Ω') && greek.contains(&'µ') && greek.contains(&'\u{301}'));
        assert!(!greek.contains(&'a') && !greek.contains(&'é') && !greek.contains(&'\u{E000}'));
    }
}
