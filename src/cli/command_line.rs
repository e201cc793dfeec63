//! Command lines as text. Removes secrets from the program's own command line, which every user of the machine can read (`ps`), and
//! writes commands that users can copy.

use std::any::TypeId;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;

use clap::{Arg, ArgAction};

use crate::secrets::Secret;
use crate::source::hub::Token;

/// A command line for a POSIX shell. Callers must not add secrets.
#[derive(Debug, Default)]
pub(super) struct CommandLine(pub(super) String);

impl CommandLine {
    /// Adds an option with its value, if the value is set.
    pub(super) fn option(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            // Writing to a string cannot fail.
            let _ = write!(self.0, " {name} {}", quoted(&value.to_string()));
        }
    }

    /// Adds an option without a value, if it is set.
    pub(super) fn flag(&mut self, name: &str, is_set: bool) {
        if is_set {
            let _ = write!(self.0, " {name}");
        }
    }
}

/// The word, quoted for a shell if necessary.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The cluster's address. It is a secret if it contains a password.
#[derive(Debug, Clone)]
pub(super) struct UrlArgument(pub(super) String);

impl From<String> for UrlArgument {
    fn from(url: String) -> Self {
        Self(url)
    }
}

/// Which values of an option are secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// Every value.
    Always,
    /// Addresses that contain a user or a password.
    WithCredentials,
}

impl Secrecy {
    /// The secrecy of an option, determined by the type of its value.
    pub(super) fn of(option: &Arg) -> Option<Self> {
        let value = option.get_value_parser().type_id();
        if value == TypeId::of::<Secret>() || value == TypeId::of::<Token>() {
            Some(Self::Always)
        } else if value == TypeId::of::<UrlArgument>() {
            Some(Self::WithCredentials)
        } else {
            None
        }
    }

    /// Whether a value is secret.
    pub(super) fn applies_to(self, value: &OsStr) -> bool {
        match self {
            Self::Always => true,
            Self::WithCredentials => value.as_encoded_bytes().contains(&b'@'),
        }
    }
}

/// If the command line contains secrets, starts the program again in the same process, with the secrets in its environment, which
/// only its own user can read. Returns if that is not possible, or if there are no secrets.
pub(super) fn conceal(arguments: &[OsString]) {
    let (rest, secrets) = separate(arguments, &super::definition());
    // A process that uses the library must not be started again.
    if secrets.is_empty() || !std::env::args_os().eq(arguments.iter().cloned()) {
        return;
    }
    #[cfg(unix)]
    if let (Ok(program), Some((name, rest))) = (std::env::current_exe(), rest.split_first()) {
        use std::os::unix::process::CommandExt;
        // `exec` returns only if it fails. In this case, the program continues.
        let _ = std::process::Command::new(program).arg0(name).args(rest).envs(secrets).exec();
    }
}

/// The options of all commands.
struct Options(Vec<Arg>);

impl Options {
    fn of(command: &clap::Command) -> Self {
        let commands = std::iter::once(command).chain(command.get_subcommands());
        Self(commands.flat_map(clap::Command::get_arguments).cloned().collect())
    }

    fn long(&self, name: &str) -> Option<&Arg> {
        let name = name.strip_prefix("--")?;
        self.0.iter().find(|option| option.get_long() == Some(name))
    }

    fn short(&self, name: char) -> Option<&Arg> {
        self.0.iter().find(|option| option.get_short() == Some(name))
    }
}

/// A word of the command line that names an option whose values can be secret.
struct NamedOption<'a> {
    option: &'a Arg,
    /// The flags before a short option in the same word: `-v` in `-vpSECRET`.
    flags: &'a str,
    /// The value, if it is in the same word.
    value: Option<&'a str>,
}

fn named<'a>(word: &'a str, options: &'a Options) -> Option<NamedOption<'a>> {
    if word.starts_with("--") {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        return Some(NamedOption { option: options.long(name)?, flags: "", value });
    }
    let letters = word.strip_prefix('-')?;
    for (place, letter) in letters.char_indices() {
        let option = options.short(letter)?;
        if matches!(option.get_action(), ArgAction::Set | ArgAction::Append) {
            let value = &letters[place + letter.len_utf8()..];
            let value = value.strip_prefix('=').unwrap_or(value);
            let flags = &word[..place + 1];
            let flags = if place == 0 { "" } else { flags };
            return Some(NamedOption {
                option,
                flags,
                value: Some(value).filter(|it| !it.is_empty()),
            });
        }
    }
    None
}

/// The arguments without the secrets, and the secrets with their environment variables.
fn separate(
    arguments: &[OsString],
    command: &clap::Command,
) -> (Vec<OsString>, Vec<(OsString, OsString)>) {
    let options = Options::of(command);
    let mut rest = Vec::with_capacity(arguments.len());
    let mut secrets: Vec<(OsString, OsString)> = Vec::new();
    let mut words = arguments.iter();
    while let Some(argument) = words.next() {
        if argument == "--" {
            rest.push(argument.clone());
            rest.extend(words.cloned());
            break;
        }
        let secret = argument.to_str().and_then(|word| {
            let NamedOption { option, flags, value } = named(word, &options)?;
            let (secrecy, variable) = (Secrecy::of(option)?, option.get_env()?);
            let (words_used, value) = match value {
                Some(value) => (0, OsString::from(value)),
                None => (1, words.clone().next()?.clone()),
            };
            let is_list = matches!(option.get_action(), ArgAction::Append);
            let secret = (variable.to_owned(), value, flags, words_used, is_list);
            secrecy.applies_to(&secret.1).then_some(secret)
        });
        let Some((variable, value, flags, words_used, is_list)) = secret else {
            rest.push(argument.clone());
            continue;
        };
        if words_used == 1 {
            words.next();
        }
        if !flags.is_empty() {
            rest.push(flags.into());
        }
        match secrets.iter_mut().find(|(other, _)| *other == variable) {
            // One line per value; see the option's delimiter.
            Some((_, values)) if is_list => {
                values.push("\n");
                values.push(value);
            }
            _ => secrets.push((variable, value)),
        }
    }
    (rest, secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn separated(line: &str) -> (String, String) {
        let arguments: Vec<_> = line.split(' ').map(OsString::from).collect();
        let (rest, secrets) = separate(&arguments, &super::super::definition());
        let secrets =
            secrets.iter().map(|(name, value)| format!("{}={}", name.display(), value.display()));
        (rest.join(" ".as_ref()).into_string().unwrap(), secrets.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn secrets_are_removed_from_the_command_line() {
        for password in ["-p s", "-ps", "-p=s", "--es-password s", "--es-password=s"] {
            let (rest, secrets) = separated(&format!("x import -u me {password} --start"));
            assert_eq!(
                (rest.as_str(), secrets.as_str()),
                ("x import -u me --start", "ES_PASSWORD=s")
            );
        }
        for (line, rest, secrets) in [
            (
                "x --url http://me:s@h --es-token t --es-api-key=k=",
                "x",
                "ES_URL=http://me:s@h ES_TOKEN=t ES_API_KEY=k=",
            ),
            ("x import --hub-access-token hf_x", "x import", "HUB_ACCESS_TOKEN=hf_x"),
            ("x list --header A:b --header=C:d", "x list", "ES_HEADERS=A:b\nC:d"),
            // Short options in one word.
            ("x list -vpSECRET", "x list -v", "ES_PASSWORD=SECRET"),
            ("x list -vvp SECRET -q", "x list -vv -q", "ES_PASSWORD=SECRET"),
        ] {
            assert_eq!(separated(line), (rest.to_owned(), secrets.to_owned()), "{line}");
        }
        for plain in [
            "x import --url http://h --start",
            "x list -- -p s",
            "x import -p",
            "x list -upSECRET",
            "x list -zpSECRET",
        ] {
            assert_eq!(separated(plain), (plain.to_owned(), String::new()));
        }
    }

    #[test]
    fn secrecy_follows_the_type_of_the_value() {
        let command = super::super::definition();
        let options = Options::of(&command).0;
        let mut secret: Vec<_> = options
            .iter()
            .filter(|option| Secrecy::of(option).is_some())
            .map(|option| option.get_long().unwrap())
            .collect();
        secret.sort_unstable();
        secret.dedup();
        let expected = [
            "es-api-key",
            "es-password",
            "es-token",
            "header",
            "hub-access-token",
            "kibana-url",
            "url",
        ];
        assert_eq!(secret, expected);
        // Secrets move from the command line to this variable.
        assert!(options.iter().all(|it| Secrecy::of(it).is_none() || it.get_env().is_some()));
    }
}
