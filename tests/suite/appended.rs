//! Rows with tokens that are appended to the vocabulary: the graph computes what Hugging Face's model computes for the text
//! (`tests/fixtures/appended.py`).

use std::collections::BTreeMap;

use rust_eland::conversion::{Conversion, Options, Traced};
use rust_eland::observer::Progress;
use rust_eland::server_tokenization::{NO_SPAN, Settings, Tokenizer, Truncate};
use rust_eland::source::ModelFiles;
use rust_eland::tasks::Task;
use rust_eland::version::Target;
use serde::Deserialize;
use serde_json::json;
use standin::StandIn;
use tch::Tensor;

use crate::fixtures::{Case, Fixture};
use crate::graphs::Graphs;
use crate::import::{compare, import, infer};
use crate::numbers::as_the_server_sends;

/// A text or pair with the ids of the model's own tokenizer and the output of Hugging Face's model.
#[derive(Deserialize)]
struct Reference {
    fixture: String,
    task: String,
    texts: Vec<String>,
    /// The words of a Japanese analyser and the white space that separates them, in the order of the text.
    segments: Option<Vec<String>>,
    ids: Vec<i64>,
    shape: Vec<i64>,
    output: Vec<f32>,
}

impl Reference {
    fn all() -> Vec<Self> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/appended.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn task(&self) -> Task {
        self.task.parse().unwrap()
    }

    fn output(&self) -> Tensor {
        Tensor::from_slice(&self.output).view(self.shape.as_slice())
    }

    fn case(&self, ids: &[i64]) -> Case {
        let input_ids = Tensor::from_slice(ids).unsqueeze(0);
        Case {
            name: format!("{} {:?}", self.fixture, self.texts),
            texts: Some(vec![self.texts.clone()]),
            attention_mask: input_ids.ones_like(),
            input_ids,
            output: self.output(),
            output_16: None,
        }
    }
}

/// The server's tokenizer for the vocabulary that a conversion uploads.
fn server(conversion: &Conversion) -> Tokenizer {
    let tokenizer = conversion.tokenizer();
    let settings = json!({ tokenizer.kind.name(): tokenizer.settings });
    let vocabulary = tokenizer.vocabulary.clone();
    let (merges, scores) = (vocabulary.merges.as_deref(), vocabulary.scores.as_deref());
    Tokenizer::build(
        Settings::from_json(&settings).unwrap(),
        vocabulary.vocabulary.clone(),
        merges.unwrap_or_default(),
        scores.unwrap_or_default(),
    )
    .unwrap()
}

/// The row of the server.
fn row(server: &Tokenizer, reference: &Reference) -> Vec<u32> {
    match (&reference.segments, &reference.texts[..]) {
        (Some(segments), _) => {
            let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
            let tokens = server.tokens_of_segments(&segments);
            server.single_rows(&tokens, Truncate::First, NO_SPAN).unwrap().remove(0).ids
        }
        (None, [text]) => server.single(text, Truncate::First, NO_SPAN).unwrap().remove(0).ids,
        (None, [first, second]) => server.pair(first, second, Truncate::First).unwrap().ids,
        (None, other) => panic!("{other:?}"),
    }
}

/// Hugging Face's output with the values of each token at the places of the server's tokens.
fn at_server_places(
    reference: &Reference,
    model_ids: &dyn Fn(&[u32]) -> Vec<u32>,
    labels: &[String],
    row: &[u32],
) -> Tensor {
    let output = reference.output();
    let task = reference.task();
    if !task.answers_tokens() {
        return output;
    }
    // The model's tokens up to and including each token of the server.
    let kept = |length: usize| model_ids(&row[..length]).len() as i64;
    let places: Vec<i64> = (1..=row.len()).map(|length| (kept(length) - 1).max(0)).collect();
    let axis = if task == Task::QuestionAnswering { 2 } else { 1 };
    let output = output.index_select(axis, &Tensor::from_slice(&places));
    if task == Task::Ner {
        // The bytes after the first of a run continue its entity: no B label, and its logit for the I label.
        for (place, model) in places.iter().enumerate() {
            if place > 0 && places[place - 1] == *model {
                let logits = output.get(0).get(place as i64);
                for (label, name) in
                    labels.iter().enumerate().map(|(label, name)| (label as i64, name))
                {
                    let Some(class) = name.strip_prefix("B-") else { continue };
                    let inside = labels.iter().position(|other| *other == format!("I-{class}"));
                    let inside = inside.unwrap() as i64;
                    let most = logits.double_value(&[label]).max(logits.double_value(&[inside]));
                    let _ = logits.get(inside).fill_(most);
                    let _ = logits.get(label).fill_(-10_000.);
                }
            }
        }
    }
    if task == Task::QuestionAnswering {
        for (place, model) in places.iter().enumerate() {
            if place > 0 && places[place - 1] == *model {
                let _ = output.get(0).get(0).get(place as i64).fill_(-1e9);
                let _ = output.get(1).get(0).get(place as i64 - 1).fill_(-1e9);
            }
        }
    }
    output
}

/// The names of the labels in `config.json`.
fn labels(fixture: &str) -> Vec<String> {
    let config = std::fs::read(Fixture::named(fixture).model().join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let label = |id: usize| config["id2label"][id.to_string()].as_str().map(str::to_owned);
    (0..).map_while(label).collect()
}

fn difference(ours: &Tensor, reference: &Tensor) -> f64 {
    assert_eq!(ours.size(), reference.size());
    (ours - reference).abs().max().double_value(&[])
}

#[test]
fn graph_on_rows_of_the_server_matches_hugging_face() {
    let mut models: BTreeMap<(String, Task), (Conversion, Traced, Tokenizer)> = BTreeMap::new();
    let mut compacted = 0;
    for reference in Reference::all() {
        let task = reference.task();
        let key = (reference.fixture.clone(), task);
        let (conversion, traced, server) = models.entry(key).or_insert_with(|| {
            let files = ModelFiles::open(&Fixture::named(&reference.fixture).model()).unwrap();
            let mut options = Options::default();
            options.task = Some(task);
            let conversion = Conversion::read(&files, options, &Progress::quiet()).unwrap();
            let traced = conversion.trace().unwrap();
            let server = server(&conversion);
            (conversion, traced, server)
        });
        let row = row(server, &reference);
        let special = conversion.tokenizer().special;
        let appended = special.appended.unwrap();
        let of = format!("{} {task} {:?}", reference.fixture, reference.texts);
        let ids: Vec<i64> = appended.model_ids(&row).into_iter().map(i64::from).collect();
        assert_eq!(ids, reference.ids, "{of}");
        compacted += usize::from(ids.len() < row.len());

        let row: Vec<i64> = row.into_iter().map(i64::from).collect();
        let inputs = |ids: &[i64]| {
            let case = reference.case(ids);
            as_the_server_sends(&case, conversion.tokenizer().kind, special.padding)
        };
        let alone = traced.module.forward(&inputs(&row)).unwrap();
        let unsigned: Vec<u32> = row.iter().map(|id| *id as u32).collect();
        let expected = at_server_places(
            &reference,
            &|ids| appended.model_ids(ids),
            &labels(&reference.fixture),
            &unsigned,
        );
        assert!(difference(&alone, &expected) < 1e-4, "{of}: {}", difference(&alone, &expected));

        // Beside a longer row, with padding in the ids and in the mask.
        let padded: Vec<i64> =
            row.iter().copied().chain(std::iter::repeat_n(special.padding, 3)).collect();
        let long: Vec<i64> = std::iter::repeat_n(special.separator, padded.len()).collect();
        let tensors: Vec<Tensor> = inputs(&padded)
            .iter()
            .zip(inputs(&long))
            .enumerate()
            .map(|(number, (padded, long))| {
                if number == 1 {
                    let _ = padded.narrow(1, row.len() as i64, 3).fill_(special.padding);
                }
                Tensor::cat(&[padded, &long], 0)
            })
            .collect();
        let both = traced.module.forward(&tensors).unwrap();
        let length = row.len() as i64;
        let first = match task {
            Task::QuestionAnswering => both.narrow(1, 0, 1).narrow(2, 0, length),
            task if task.answers_tokens() => both.narrow(0, 0, 1).narrow(1, 0, length),
            _ => both.narrow(0, 0, 1),
        };
        assert!(difference(&first, &expected) < 1e-4, "{of}: {}", difference(&first, &expected));
    }
    assert!(compacted >= 30, "only {compacted} rows have appended tokens");
}

#[test]
fn operations_of_japanese_graphs_match_their_snapshot() {
    let fixture = Fixture::named("bert/japanese");
    let mut graphs = Graphs::default();
    for task in fixture.tasks() {
        for target in [Target::Any, Target::Serverless] {
            let files = ModelFiles::open(&fixture.model()).unwrap();
            let mut options = Options::default();
            (options.task, options.target) = (Some(task), target);
            let conversion = Conversion::read(&files, options, &Progress::quiet()).unwrap();
            graphs.add(&fixture, task, conversion.trace().unwrap().operations);
        }
    }
    graphs.check("bert-japanese").unwrap();
}

#[test]
fn served_answers_match_hugging_face() {
    let standin = StandIn::start(standin::Options::default());
    let mut imported = (String::new(), String::new());
    let mut compared = 0;
    for reference in Reference::all() {
        let task = reference.task();
        // The stand-in has no Japanese analyser. For each token of the server: the test above.
        if reference.segments.is_some() || matches!(task, Task::Ner | Task::PassThrough) {
            continue;
        }
        let model = (reference.fixture.clone(), reference.task.clone());
        if model != imported {
            import(&standin, &Fixture::named(&reference.fixture), task);
            imported = model;
        }
        let answer = infer(&standin, task, &reference.texts);
        let config = standin.configuration("m").unwrap();
        let config = &config["inference_config"][task.name()];
        let vocabulary = standin.vocabulary("m").unwrap().vocabulary;
        compare(&answer, task, &reference.case(&reference.ids), 0, config, &vocabulary);
        compared += 1;
    }
    assert!(compared >= 25, "{compared}");
}

#[test]
fn entities_include_all_bytes_of_a_character() {
    let standin = StandIn::start(standin::Options::default());
    import(&standin, &Fixture::named("deberta-v2/ner"), Task::Ner);
    for reference in Reference::all().iter().filter(|it| it.task() == Task::Ner) {
        let text = &reference.texts[0];
        let answer = infer(&standin, Task::Ner, &reference.texts);
        let config = standin.configuration("m").unwrap();
        let labels = config["inference_config"]["ner"]["classification_labels"].clone();
        let best = reference.output().get(0).argmax(-1, false);
        let inner = best.narrow(0, 1, best.size()[0] - 2);
        let outside = labels.as_array().unwrap().iter().position(|label| label == "O").unwrap();
        let is_tagged = inner.ne(outside as i64).any().int64_value(&[]) == 1;
        let entities = answer["entities"].as_array().unwrap();
        assert_eq!(entities.is_empty(), !is_tagged, "{text}: {answer}");
        for entity in entities {
            // Offsets count UTF-16 units; an entity never ends within a character.
            let units: Vec<u16> = text.encode_utf16().collect();
            let at = |name: &str| entity[name].as_u64().unwrap() as usize;
            let part = String::from_utf16(&units[at("start_pos")..at("end_pos")]);
            assert!(part.is_ok(), "{text}: {entity}");
        }
    }
}
