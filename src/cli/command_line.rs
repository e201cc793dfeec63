//! The command line as text: takes secrets off the one that the program was started with, which everybody on the machine can read
//! (`ps`), and writes ones that people can copy.

use std::ffi::OsString;
use std::fmt::Write as _;

/// A command line in the making, for a POSIX shell. Whoever writes one puts no secret into it.
#[derive(Debug, Default)]
pub(super) struct CommandLine(pub(super) String);

impl CommandLine {
    /// Adds an option with its value, if it has one.
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

/// A word as a shell reads it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The options whose values are secret, and the variable that says the same.
const SECRET: [(&str, &str); 5] = [
    ("--es-password", "ES_PASSWORD"),
    ("--es-api-key", "ES_API_KEY"),
    ("--es-token", "ES_TOKEN"),
    ("--hub-access-token", "HUB_ACCESS_TOKEN"),
    ("--url", "ES_URL"),
];

/// If the command line holds secrets, starts the program again in the same process with these in its environment, which only its own
/// user can read. Returns where that cannot be, or there is nothing to hide.
pub(super) fn conceal(arguments: &[OsString]) {
    let (rest, secrets) = separate(arguments);
    // A program that uses the library is not started again.
    if secrets.is_empty() || !std::env::args_os().eq(arguments.iter().cloned()) {
        return;
    }
    #[cfg(unix)]
    if let (Ok(program), Some((name, rest))) = (std::env::current_exe(), rest.split_first()) {
        use std::os::unix::process::CommandExt;
        // Returns only if it fails; then the program goes on as it was started.
        let _ = std::process::Command::new(program).arg0(name).args(rest).envs(secrets).exec();
    }
}

/// The arguments without the secrets, and these with their variables.
fn separate(arguments: &[OsString]) -> (Vec<OsString>, Vec<(&'static str, OsString)>) {
    let mut rest = Vec::with_capacity(arguments.len());
    let mut secrets = Vec::new();
    let mut left = arguments.iter();
    while let Some(argument) = left.next() {
        let text = argument.to_str().unwrap_or_default();
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None if text.starts_with("-p") && text.len() > 2 => ("-p", Some(&text[2..])),
            None => (text, None),
        };
        let name = if name == "-p" { "--es-password" } else { name };
        let variable =
            SECRET.iter().find(|(option, _)| *option == name).map(|(_, variable)| *variable);
        // An address is a secret only with a password in it.
        let is_secret =
            |value: &OsString| variable != Some("ES_URL") || value.to_string_lossy().contains('@');
        let value = match (variable, value) {
            (Some(_), Some(value)) => Some((1, OsString::from(value))),
            (Some(_), None) => left.clone().next().map(|value| (2, value.clone())),
            (None, _) => None,
        };
        match (variable, value.filter(|(_, value)| is_secret(value))) {
            (Some(variable), Some((words, value))) => {
                if words == 2 {
                    left.next();
                }
                secrets.push((variable, value));
            }
            _ => rest.push(argument.clone()),
        }
        if text == "--" {
            rest.extend(left.cloned());
            break;
        }
    }
    (rest, secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn separated(line: &str) -> (String, String) {
        let arguments: Vec<_> = line.split(' ').map(OsString::from).collect();
        let (rest, secrets) = separate(&arguments);
        let secrets = secrets.iter().map(|(name, value)| format!("{name}={}", value.display()));
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
        let (rest, secrets) = separated("x --url http://me:s@h --es-token t --es-api-key=k=");
        assert_eq!(
            (rest.as_str(), secrets.as_str()),
            ("x", "ES_URL=http://me:s@h ES_TOKEN=t ES_API_KEY=k=")
        );
        for plain in ["x import --url http://h --start", "x list -- -p s", "x import -p"] {
            assert_eq!(separated(plain), (plain.to_owned(), String::new()));
        }
    }
}
