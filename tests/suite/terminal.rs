//! Runs the program on a pseudo-terminal.

use std::io::{Read, Write};
use std::path::Path;

use pty_process::Size;
use pty_process::blocking::{Command, Pty, open};

use crate::program::VARIABLES;

/// A pseudo-terminal with a running program.
pub struct Terminal {
    pty: Pty,
    child: std::process::Child,
    shown: String,
}

impl Terminal {
    /// Starts the program with only the given environment, so that the developer's machine has no influence.
    pub fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_program(Path::new(env!("CARGO_BIN_EXE_rust-eland")), arguments, environment)
    }

    /// Starts another program on a pseudo-terminal.
    pub fn start_program(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let (pty, other_end) = open().unwrap();
        pty.resize(Size::new(40, 160)).unwrap();
        let mut command = Command::new(program);
        for name in VARIABLES {
            command = command.env_remove(name);
        }
        let child = command
            .env("RUST_ELAND_STATE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/state"))
            .env("TERM", "xterm")
            .envs(environment.iter().copied())
            .args(arguments)
            .spawn(other_end)
            .unwrap();
        Self { pty, child, shown: String::new() }
    }

    /// Sends keys.
    pub fn type_text(&mut self, text: &str) {
        self.pty.write_all(text.as_bytes()).unwrap();
    }

    /// Sends a line.
    pub fn type_line(&mut self, text: &str) {
        self.pty.write_all(format!("{text}\n").as_bytes()).unwrap();
    }

    /// Waits until the terminal does not echo input, as for a password.
    pub fn wait_until_hidden(&mut self) {
        let shows = |pty: &Pty| {
            let modes = rustix::termios::tcgetattr(pty).unwrap().local_modes;
            modes.contains(rustix::termios::LocalModes::ECHO)
        };
        while shows(&self.pty) {
            assert!(self.child.try_wait().unwrap().is_none(), "it did not ask: {}", self.shown);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Answers the questions of a guided import about the cluster: its address, and that it needs no login.
    #[track_caller]
    pub fn connect(&mut self, url: &str) {
        self.wait_for("Address or cloud ID of the cluster");
        self.type_line(url);
        self.wait_for("How do you log in?");
        // Two lines down: "no".
        self.type_text("\x1b[B\x1b[B\r");
    }

    /// Answers the questions of a guided import after those about the model: its id, no quantization, whether to start it, and
    /// neither a verification, a pipeline nor Kibana.
    pub fn answer_last_questions(&mut self, id: &str, start: &str) {
        self.wait_for("Id of the model in Elasticsearch");
        self.type_line(id);
        self.wait_for("8-bit integers");
        self.type_text("n");
        self.wait_for("Start the model after the upload?");
        self.type_text(start);
        if start == "y" {
            self.wait_for("Compare the answers");
            self.type_text("n");
            self.wait_for("Ingest pipeline to create");
            self.type_line("");
        }
        self.wait_for("Address of Kibana");
        self.type_line("");
    }

    /// Waits for a text after the previous match, and returns the output up to the end of the text.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                return std::mem::replace(&mut self.shown, rest);
            }
            assert!(self.read(), "{text:?} is not shown: {}", self.shown);
        }
    }

    /// Waits for the end and returns the remaining output and the exit code.
    pub fn end(mut self) -> (String, Option<i32>) {
        while self.read() {}
        (self.shown, self.child.wait().unwrap().code())
    }

    /// Reads more output. Returns false at the end of the process.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.pty.read(&mut buffer) {
            Ok(read @ 1..) => {
                self.shown += &String::from_utf8_lossy(&buffer[..read]);
                true
            }
            _ => false,
        }
    }
}
