//! Which options of an import go together. clap checks the command line; this module checks options that come from elsewhere by the same
//! definition.

use clap::{Arg, Command};

use super::{start_arguments, tree_model};

/// Options that need another option, in addition to those of a deployment, which need `start`, and those of a tree model.
const REQUIREMENTS: [(&str, &str); 10] = [
    ("client-key", "client-cert"),
    ("quantize-min-agreement", "quantize"),
    ("target-agreement", "quantize"),
    ("calibration-texts", "quantize"),
    ("definition", "vocabulary"),
    ("definition", "config"),
    ("vocabulary", "definition"),
    ("config", "definition"),
    ("input-field", "create-pipeline"),
    ("output-field", "create-pipeline"),
];

/// Options of which `force` needs at least one.
const REPLACEABLE: [&str; 2] = ["tree-model", "create-pipeline"];

/// Groups of options of which exactly one is set.
const ALTERNATIVES: [&str; 2] = ["cluster", "source"];

/// The option with this name.
pub(super) fn find<'a>(options: &'a Command, name: &str) -> Option<&'a Arg> {
    options.get_arguments().find(|option| option.get_long() == Some(name))
}

/// The first rule that the options with these names break, in the words of clap.
pub(super) fn broken(options: &Command, set: &[&str]) -> Option<String> {
    let set: Vec<&Arg> = set.iter().filter_map(|name| find(options, name)).collect();
    let is_set = |wanted: &Arg| set.iter().any(|option| option.get_id() == wanted.get_id());
    let conflict = |one: &Arg, other: &Arg| {
        Some(format!("the argument '{one}' cannot be used with '{other}'"))
    };
    let missing =
        |what: &str| Some(format!("the following required arguments were not provided: {what}"));
    for option in &set {
        let mut conflicting = options.get_arg_conflicts_with(option).into_iter();
        if let Some(other) = conflicting.find(|other| is_set(other)) {
            return conflict(option, other);
        }
    }
    for group in options.get_groups().filter(|it| ALTERNATIVES.contains(&it.get_id().as_str())) {
        let members: Vec<_> = group.get_args().cloned().collect();
        let members = || options.get_arguments().filter(|it| members.contains(it.get_id()));
        let mut chosen = members().filter(|it| is_set(it));
        match (chosen.next(), chosen.next()) {
            (Some(one), Some(other)) => return conflict(one, other),
            (Some(_), None) => {}
            (None, _) => {
                let names: Vec<_> = members().map(Arg::to_string).collect();
                return missing(&format!("<{}>", names.join("|")));
            }
        }
    }
    for option in &set {
        let name = option.get_long().unwrap_or_default();
        let of_deployment = (option.get_help_heading() == Some(start_arguments::HEADING))
            .then_some((name, "start"));
        let is_of_tree_model = option.get_help_heading() == Some(tree_model::HEADING);
        let of_tree_model = (is_of_tree_model && !["tree-model", "force"].contains(&name))
            .then_some((name, "tree-model"));
        let replaceable = || REPLACEABLE.iter().filter_map(|name| find(options, name));
        if name == "force" && !replaceable().any(is_set) {
            let names: Vec<_> = replaceable().map(Arg::to_string).collect();
            return missing(&format!("<{}>", names.join("|")));
        }
        let needed = REQUIREMENTS.iter().copied().chain(of_deployment).chain(of_tree_model);
        let mut needed = needed.filter(|(needing, _)| *needing == name);
        let absent = needed.find_map(|(_, needed)| find(options, needed).filter(|it| !is_set(it)));
        if let Some(absent) = absent {
            return missing(&absent.to_string());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::*;
    use crate::cli::apply::NOT_IN_A_FILE;
    use crate::cli::import::ImportArguments;
    use crate::cli::option_value::{SetOption, Unset, Value};

    fn options() -> Command {
        let command = Command::new("import").no_binary_name(true).disable_help_flag(true);
        let command = ImportArguments::augment_args(command);
        // The environment of the developer must not matter.
        let mut command = command.mut_args(|option| option.env(None::<&str>));
        command.build();
        command
    }

    /// A valid value of an option; none for a switch.
    fn example(option: &Arg) -> Option<&'static str> {
        let name = option.get_long().unwrap();
        match name {
            _ if !option.get_action().takes_values() => None,
            "on-conflict" => Some("skip"),
            "wait-for" => Some("started"),
            "priority" => Some("low"),
            "task-type" => Some("ner"),
            "quantize" => Some("all"),
            "quantize-min-agreement" | "target-agreement" => Some("0.5"),
            "calibration-texts" => Some(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")),
            "scripts" => Some("latin"),
            "languages" => Some("en"),
            "part-size" => Some("1MiB"),
            "cache-size" => Some("1mb"),
            "target" => Some("regression"),
            "prediction-field-type" => Some("number"),
            "default-field-map" => Some("a=b"),
            "classification-weights" | "num-top-classes" | "feature-importance" => Some("1"),
            "timeout" | "start-timeout" => Some("7s"),
            "max-model-input-length" | "dimensions" | "upload-concurrency" | "retries" => Some("7"),
            "threads-per-allocation" | "number-of-allocations" | "queue-capacity" => Some("4"),
            "min-allocations" | "max-allocations" => Some("4"),
            // Values of secret options are hidden in all texts of this process, so a shorter one would change those of other tests.
            _ => Some("q0qx7"),
        }
    }

    /// Options that a file of imports can set.
    fn names(options: &Command) -> Vec<&Arg> {
        let is_of_file = |option: &&Arg| !NOT_IN_A_FILE.contains(&option.get_long().unwrap());
        options.get_arguments().filter(is_of_file).collect()
    }

    #[test]
    fn every_option_can_be_set_by_name() {
        for option in names(&options()) {
            let mut arguments = ImportArguments::unset().unwrap();
            let value = Value::Text(example(option).unwrap_or("true").to_owned());
            assert_eq!(arguments.set(option.get_long().unwrap(), &value), Ok(()), "{option}");
        }
        let mut arguments = ImportArguments::unset().unwrap();
        assert_eq!(arguments.set("output", &Value::Text("json".into())), Err(Unset::UnknownName));
    }

    #[test]
    fn rules_agree_with_the_command_line_for_every_pair_of_options() {
        let options = options();
        let all = names(&options);
        let word = |option: &Arg| {
            let name = option.get_long().unwrap();
            match example(option) {
                Some(value) => format!("--{name}={value}"),
                None => format!("--{name}"),
            }
        };
        let url = find(&options, "url").unwrap();
        let model = find(&options, "hub-model-id").unwrap();
        for base in [vec![], vec![url], vec![url, model]] {
            for (at, one) in all.iter().enumerate() {
                for other in &all[at..] {
                    let mut set = base.clone();
                    for option in [one, other] {
                        if !set.iter().any(|it| it.get_id() == option.get_id()) {
                            set.push(option);
                        }
                    }
                    let words: Vec<_> = set.iter().map(|option| word(option)).collect();
                    let parsed = options.clone().try_get_matches_from(&words);
                    let names: Vec<_> = set.iter().map(|it| it.get_long().unwrap()).collect();
                    let broken = broken(&options, &names);
                    // clap does not miss an option beside one that excludes it; that would ignore the option which needs it.
                    let is_stricter = broken.as_ref().is_some_and(|it| it.contains("required"));
                    let is_same = parsed.is_err() == broken.is_some();
                    assert!(is_same || is_stricter, "{words:?}: {broken:?}");
                }
            }
        }
    }
}
