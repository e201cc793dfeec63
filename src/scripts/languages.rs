//! The scripts that languages are written in.

use icu_properties::props::Script;

use super::{long_name, named};

/// Languages by their scripts: codes of ISO 639, separated by blanks. A language that is written in several scripts is in several rows.
const LANGUAGES: [(Script, &str); 33] = [
    (
        Script::Latin,
        "af ast az br bs ca ceb co cs cy da de en eo es et eu fi fil fo fr fy ga gd gl gn gv ha haw hr ht hu ia id ig is it jv ku kw la lb lg \
         li ln lt lv mg mi ms mt nb nl nn no nso ny oc om pl pt qu rm rn ro rw sc scn se sk sl sm sn so sq sr ss st su sv sw szl tk tl tn to tr \
         ts ty uz vec ve vi wa wo xh yo zu",
    ),
    (
        Script::Cyrillic,
        "ab av az ba be bg bs ce cv kk ky mk mn os ru rue sah sr tg tk tt tyv udm uk uz",
    ),
    (Script::Greek, "el"),
    (Script::Armenian, "hy hyw"),
    (Script::Georgian, "ka xmf"),
    (Script::Hebrew, "he iw yi"),
    (Script::Arabic, "ar arz azb ckb fa ks ku ps sd ug ur"),
    (Script::Syriac, "syc syr"),
    (Script::Thaana, "dv"),
    (Script::Devanagari, "awa bho hi kok ks mai mr ne new sa sd"),
    (Script::Bengali, "as bn bpy mni"),
    (Script::Gurmukhi, "pa"),
    (Script::Gujarati, "gu"),
    (Script::Oriya, "or"),
    (Script::Tamil, "ta"),
    (Script::Telugu, "te"),
    (Script::Kannada, "kn tcy"),
    (Script::Malayalam, "ml"),
    (Script::Sinhala, "si"),
    (Script::Thai, "th"),
    (Script::Lao, "lo"),
    (Script::Tibetan, "bo dz"),
    (Script::Myanmar, "my shn"),
    (Script::Khmer, "km"),
    (Script::Ethiopic, "am ti"),
    (Script::Cherokee, "chr"),
    (Script::CanadianAboriginal, "cr iu"),
    (Script::Mongolian, "mn"),
    (Script::Tifinagh, "zgh"),
    (Script::Han, "gan ja ko lzh nan wuu yue zh"),
    (Script::Hiragana, "ja"),
    (Script::Katakana, "ja"),
    (Script::Hangul, "ko"),
];

/// The scripts of a language, by its code or tag. A script in the tag replaces those of the language.
pub(super) fn scripts_of(tag: &str) -> Option<Vec<Script>> {
    let mut subtags = tag.split(['-', '_']);
    let language = subtags.next()?.to_lowercase();
    // Subtags after a single letter are extensions.
    let code = subtags.take_while(|it| it.len() > 1).find(|it| is_script_code(it));
    let of_language = |(_, codes): &&(Script, &str)| codes.split(' ').any(|code| code == language);
    let scripts: Vec<Script> =
        LANGUAGES.iter().filter(of_language).map(|(script, _)| *script).collect();
    match code {
        _ if scripts.is_empty() => None,
        Some(code) => named(code),
        None => Some(scripts),
    }
}

/// Whether a subtag has the form of a script: four letters.
fn is_script_code(subtag: &str) -> bool {
    subtag.len() == 4 && subtag.bytes().all(|byte| byte.is_ascii_alphabetic())
}

/// The codes of all known languages, sorted.
pub(super) fn codes() -> Vec<&'static str> {
    let mut codes: Vec<_> = LANGUAGES.iter().flat_map(|(_, codes)| codes.split(' ')).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// The names of the scripts of all known languages.
pub(super) fn scripts() -> Vec<&'static str> {
    LANGUAGES.iter().map(|(script, _)| long_name(*script)).collect()
}
