//! Compares the operations of all graphs with the snapshots in tests/fixtures/graphs, so that changes are visible in reviews.
//! numbers.rs traces the graphs and passes them to this module.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use rust_eland::tasks::Task;

use crate::fixtures::Fixture;

/// If this variable is set, the snapshots are written again.
const UPDATE: &str = "UPDATE_SNAPSHOTS";

type Operations = BTreeMap<String, usize>;

/// Graphs of one architecture: one fixture per task, the simplest one or the first with references for the task.
#[derive(Default)]
pub struct Graphs(BTreeMap<Task, (String, Vec<Operations>)>);

impl Graphs {
    /// Adds the graph of a fixture for a task: first the one with attention in plain operations, then the fused one.
    pub fn add(&mut self, fixture: &Fixture, task: Task, operations: Operations) {
        let known = self.0.get_mut(&task).filter(|(name, _)| *name == fixture.name);
        if let Some((_, forms)) = known {
            forms.push(operations);
        } else if fixture.name.ends_with("/base") || !self.0.contains_key(&task) {
            self.0.insert(task, (fixture.name.clone(), vec![operations]));
        }
    }

    /// Compares the graphs with the snapshot of the architecture, and prints the differences.
    pub fn check(&self, architecture: &str) -> Result<(), String> {
        let path = folder().join(format!("{architecture}.txt"));
        let (found, recorded) = (self.table(), std::fs::read_to_string(&path).unwrap_or_default());
        if std::env::var_os(UPDATE).is_some() {
            std::fs::write(&path, found).unwrap();
            return Ok(());
        }
        if found == recorded {
            return Ok(());
        }
        let new: Vec<_> =
            found.lines().filter(|line| !recorded.lines().any(|old| old == *line)).collect();
        Err(format!(
            "the graphs of {architecture} differ from their snapshot. If the change is intended, update tests/fixtures/graphs with\n  \
             {UPDATE}=1 cargo test --test suite numbers\nand review the difference. New lines:\n{}",
            new.join("\n")
        ))
    }

    /// One line per operation, one column per task and form of attention.
    fn table(&self) -> String {
        let mut text = "# p: attention in plain operations, f: fused\n".to_owned();
        let mut columns = Vec::new();
        for (number, (task, (fixture, forms))) in self.0.iter().enumerate() {
            writeln!(text, "# {}: {task}, {fixture}", number + 1).unwrap();
            assert_eq!(forms.len(), 2, "{fixture} {task}");
            let names = ["p", "f"].map(|form| format!("{}{form}", number + 1));
            columns.extend(names.into_iter().zip(forms));
        }
        let names: BTreeSet<&String> = columns.iter().flat_map(|(_, found)| found.keys()).collect();
        write!(text, "{:<35}", "operation").unwrap();
        for (name, _) in &columns {
            write!(text, " {name:>4}").unwrap();
        }
        for name in names {
            write!(text, "\n{name:<35}").unwrap();
            for (_, found) in &columns {
                write!(text, " {:>4}", found.get(name).copied().unwrap_or_default()).unwrap();
            }
        }
        text + "\n"
    }
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/graphs")
}

#[test]
fn operations_of_graphs_match_their_snapshot() {
    let files: BTreeSet<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let fixtures = Fixture::all();
    let expected = fixtures
        .iter()
        .map(|fixture| fixture.name.split('/').next().unwrap())
        .chain(["bert-japanese"])
        .map(|name| format!("{name}.txt"))
        .collect();
    assert_eq!(files, expected);
}
