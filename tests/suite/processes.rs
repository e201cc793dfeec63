//! Runs the program beside a test: waits for what it does, and sends signals to it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command};
use std::thread;
use std::time::Duration;

use standin::StandIn;

/// Waits until `count` requests are held or the program has ended. Returns whether they are held.
pub fn held(standin: &StandIn, count: usize, child: &mut Child) -> bool {
    loop {
        if standin.held() >= count {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        thread::sleep(Duration::from_millis(3));
    }
}

/// Sends a signal to a process.
pub fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

/// Reads the output of the program until it contains `text`.
pub fn wait_for(stderr: &mut BufReader<ChildStderr>, text: &str) -> String {
    let mut said = String::new();
    while !said.contains(text) {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{text:?} is not in: {said}");
    }
    said
}

/// Waits for the end of a program and returns its exit code and remaining output.
pub fn end(mut child: Child, mut stderr: BufReader<ChildStderr>) -> (Option<i32>, String) {
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    (child.wait().unwrap().code(), rest)
}

pub fn spawn(mut command: Command) -> (Child, BufReader<ChildStderr>) {
    let mut child = command.spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    (child, stderr)
}
