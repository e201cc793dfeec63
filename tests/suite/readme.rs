//! The README's table of architectures and tasks says what the fixtures prove, no more and no less.

use std::collections::{BTreeMap, BTreeSet};

use rust_eland::models::Architecture;
use rust_eland::tasks::Task;

use crate::fixtures::Fixture;

#[test]
fn every_cell_of_the_table_is_backed_by_a_fixture() {
    let mut proved: BTreeMap<String, BTreeSet<Task>> = BTreeMap::new();
    for fixture in Fixture::all() {
        let architecture = fixture.name.split('/').next().unwrap();
        proved.entry(architecture.to_owned()).or_default().extend(fixture.tasks());
    }
    let known: BTreeSet<_> = Architecture::model_types().into_iter().map(str::to_owned).collect();
    assert_eq!(known, proved.keys().cloned().collect());

    let readme = include_str!("../../README.md");
    let rows = readme.lines().skip_while(|line| !line.starts_with("| `model_type` |"));
    let mut rows = rows.map(|line| {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    });
    let tasks: Vec<Task> =
        rows.next().unwrap().iter().skip(1).map(|name| name.parse().unwrap()).collect();
    assert_eq!(tasks, Task::ALL);
    let claimed: BTreeMap<_, BTreeSet<_>> = rows
        .skip(1)
        .take_while(|row| row.len() == tasks.len() + 1)
        .map(|row| {
            let marked = tasks.iter().zip(&row[1..]).filter(|(_, cell)| *cell == "✓");
            let architecture = row[0].split(' ').next().unwrap().to_owned();
            (architecture, marked.map(|(task, _)| *task).collect())
        })
        .collect();
    assert_eq!(claimed, proved);
}
