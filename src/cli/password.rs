//! Passwords from a file or from the terminal.

use std::fs::File;
use std::io::{IsTerminal, Read, stderr, stdin};
use std::path::Path;

use super::command_error::CommandError;
use crate::secrets::Secret;

/// Maximum size of a password file in bytes.
const LONGEST: u64 = 4096;

/// Reads the password from a file, or from standard input for `-`. A line break at the end is removed.
pub(super) fn read(path: &Path) -> Result<Secret, CommandError> {
    let unusable = |reason: &str| {
        CommandError::Usage(format!(
            "cannot use the password file {}: {reason}; set --es-password-file to a file that contains only the password",
            path.display()
        ))
    };
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        stdin().lock().take(LONGEST + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes))
    };
    read.map_err(|error| unusable(&error.to_string()))?;
    if bytes.len() as u64 > LONGEST {
        return Err(unusable(&format!("the file is longer than {LONGEST} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| unusable("the file is not UTF-8 text"))?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err(unusable("the file is empty"));
    }
    if password.contains(char::is_control) {
        return Err(unusable("the file contains more than one line"));
    }
    Ok(Secret::new(password))
}

/// Asks for the password on the terminal without showing it.
pub(super) fn ask(user: &str) -> Result<Secret, CommandError> {
    let missing = |reason: &str| {
        CommandError::Usage(format!(
            "the password of user {user} is not set, and {reason}; set --es-password-file or ES_PASSWORD"
        ))
    };
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(missing("there is no terminal to ask for the password"));
    }
    let answer = rpassword::prompt_password(format!("Password of {user}: "));
    let password =
        answer.map_err(|error| missing(&format!("the terminal cannot be read: {error}")))?;
    if password.is_empty() {
        Err(missing("the password entered was empty"))
    } else {
        Ok(Secret::new(password))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn password_file_contains_only_the_password() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let of = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read(&path)
        };
        for text in ["s3cret word", "s3cret word\n", "s3cret word\r\n"] {
            assert_eq!(of(text.as_bytes()).unwrap().expose(), "s3cret word");
        }
        assert_eq!(of(b" kept \n").unwrap().expose(), " kept ");
        for wrong in [&b""[..], b"\n", b"one\ntwo", b"\xff", &[b'x'; 5000]] {
            assert!(of(wrong).is_err());
        }
        assert!(read(folder.path()).is_err() && read(&folder.path().join("none")).is_err());
    }
}
