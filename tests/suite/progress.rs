//! Progress output: bars on a terminal, lines otherwise.

use standin::{Options, StandIn};

use crate::fixtures::Fixture;
use crate::program::{message, message_without_tokenizer_warnings, program, says};
use crate::terminal::Terminal;

/// Stages of an import, in order.
const STAGES: [&str; 4] = ["reading the weights", "converting", "uploading", "starting"];

fn arguments(standin: &StandIn, id: &str) -> Vec<String> {
    let model = Fixture::named("bert/ner").model().display().to_string();
    let words = ["import", "--url", &standin.url(), "--hub-model-id", &model, "--es-model-id", id];
    let start = ["--part-size", "16KiB", "--start"];
    words.into_iter().chain(start).map(str::to_owned).collect()
}

#[test]
fn terminal_shows_a_bar_and_a_line_per_stage() {
    let standin = StandIn::start(Options::default());
    let arguments = arguments(&standin, "m");
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (shown, code) = Terminal::start(&arguments, &[("NO_COLOR", "1")]).end();
    assert_eq!(code, Some(0), "{shown}");
    // Completed and total bytes, speed, and remaining time.
    for stage in ["reading the weights [", "converting [", "uploading ["] {
        let bar = &shown[shown.find(stage).unwrap_or_else(|| panic!("no {stage}: {shown}"))..];
        let bar = bar.split(['\r', '\n']).next().unwrap();
        says(bar, &["B/", "/s ", " left"]);
    }
    // The final screen contains complete lines and no bar.
    let screen = screen(&shown);
    let mut places = Vec::new();
    for stage in STAGES {
        let line = format!("INFO : {stage}: ");
        places.push(
            screen
                .iter()
                .position(|it| it.contains(&line))
                .unwrap_or_else(|| panic!("{stage}: {screen:#?}")),
        );
    }
    assert!(places.is_sorted(), "{screen:#?}");
    // The summary is at the end. The terminal wraps long warnings.
    let mut is_warning = false;
    for line in screen.iter().take_while(|line| !line.ends_with("m is imported")) {
        let is_log = line.get(19..20) == Some(",");
        is_warning = if is_log { line.contains(" WARNING : ") } else { is_warning };
        let is_expected = is_log || is_warning || line.is_empty() || line == "m started";
        assert!(is_expected, "{line:?} in {screen:#?}");
    }
}

#[test]
fn output_without_terminal_has_one_line_per_stage() {
    let standin = StandIn::start(Options::default());
    let output = program().args(arguments(&standin, "m")).output().unwrap();
    let log = message(&output);
    assert!(output.status.success() && !log.contains(['\r', '\x1b']), "{log}");
    assert!(!log.contains(" left"), "{log}");
    for stage in ["reading the weights", "converting", "uploading"] {
        let line = log.lines().find(|line| line.contains(&format!("INFO : {stage}: ")));
        let line = line.unwrap_or_else(|| panic!("{stage}: {log}"));
        assert!(line.contains("B in ") && line.ends_with(" s"), "{line}");
    }
    let quiet = program().args(arguments(&standin, "n")).arg("-q").output().unwrap();
    let quiet_message = message_without_tokenizer_warnings(&quiet);
    assert_eq!((&*quiet_message, &*quiet.stdout), ("", &b"n started\n"[..]));
}

#[test]
fn bar_is_removed_on_failure() {
    let standin = StandIn::start(Options::default());
    let model = Fixture::named("bert/ner").model().display().to_string();
    let url = standin.url();
    let arguments = ["import", "--url", &url, "--hub-model-id", &model, "--task-type", "fill_mask"];
    let (shown, code) = Terminal::start(&arguments, &[("NO_COLOR", "1")]).end();
    assert_eq!(code, Some(3), "{shown}");
    let screen = screen(&shown);
    assert!(screen.iter().all(|line| !line.contains(" left")), "{screen:#?}");
    assert!(screen.iter().any(|line| line.starts_with("error: ")), "{screen:#?}");
}

/// Final lines of a terminal, after the control sequences that draw and remove bars.
fn screen(shown: &str) -> Vec<String> {
    let (mut lines, mut row, mut column) = (vec![Vec::new()], 0, 0);
    let mut characters = shown.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\r' => column = 0,
            '\n' => {
                row += 1;
                if row == lines.len() {
                    lines.push(Vec::new());
                }
            }
            '\x1b' => {
                assert_eq!(characters.next(), Some('['));
                let mut number = String::new();
                let end = loop {
                    match characters.next() {
                        Some(digit) if digit.is_ascii_digit() || digit == '?' => number.push(digit),
                        end => break end.unwrap(),
                    }
                };
                let number = number.parse().unwrap_or(1);
                match end {
                    'A' => row -= number,
                    'B' => row += number,
                    'K' => lines[row].clear(),
                    'h' | 'l' | 'm' => {}
                    other => panic!("{other}"),
                }
            }
            character => {
                let line: &mut Vec<char> = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = character;
                column += 1;
            }
        }
    }
    lines
        .into_iter()
        .map(|line| line.into_iter().collect::<String>().trim_end().to_owned())
        .collect()
}
