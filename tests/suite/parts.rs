//! Repositories that provide several models: the document and query models of a sparse encoder, and a dense and a sparse model on one
//! encoder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rust_eland::conversion::{Conversion, Options};
use rust_eland::observer::Progress;
use rust_eland::source::ModelFiles;
use rust_eland::tasks::Task;
use rust_eland::version::Target;
use serde_json::{Value, json};
use standin::StandIn;
use tch::{Kind, Tensor};

use crate::fixtures::{Fixture, copy};
use crate::numbers::as_the_server_sends;
use crate::program::{ask, message, program, says};
use crate::terminal::Terminal;

/// Repositories with a model for documents and one for queries.
const TWO_ROUTES: [&str; 4] = [
    "opensearch-doc-v2-distill",
    "opensearch-doc-v2-mini",
    "opensearch-doc-v3-distill",
    "router-folders",
];

/// Weights of tokens, by the name of the token.
type Weights = BTreeMap<String, f64>;

/// A text or several, with the output of a reference.
struct Case {
    name: String,
    texts: Vec<String>,
    output: Tensor,
}

fn model(name: &str) -> PathBuf {
    let sparse = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sparse");
    sparse.join(name).join("model")
}

/// The cases that have texts.
fn with_texts(cases: Vec<crate::fixtures::Case>) -> Vec<Case> {
    let with_texts = cases.into_iter().filter_map(|case| {
        let texts = case.texts?.into_iter().map(|row| row[0].clone()).collect();
        Some(Case { name: case.name, texts, output: case.output })
    });
    with_texts.collect()
}

/// The references of the query model of a repository.
fn query_cases(name: &str) -> Vec<Case> {
    with_texts(Fixture::named(&format!("sparse/{name}")).part_cases("query", Task::TextExpansion))
}

/// The references of the model that a repository provides for documents, or of its sparse model.
fn document_cases(name: &str) -> Vec<Case> {
    with_texts(Fixture::named(&format!("sparse/{name}")).cases(Task::TextExpansion))
}

fn options(part: Option<&str>, target: Target) -> Options {
    let mut options = Options::default();
    options.part = part.map(str::to_owned);
    options.target = target;
    options
}

fn convert(name: &str, options: Options) -> Conversion {
    let files = ModelFiles::open(&model(name)).unwrap();
    Conversion::read(&files, options, &Progress::quiet()).unwrap()
}

fn arguments(command: &str, name: &str) -> Vec<String> {
    vec![command.to_owned(), "--hub-model-id".into(), model(name).display().to_string()]
}

/// Runs the program, which must succeed. Returns its output and its log.
fn run(arguments: &[impl AsRef<str>]) -> (String, String) {
    let output = program().args(arguments.iter().map(AsRef::as_ref)).output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    (String::from_utf8_lossy(&output.stdout).into_owned(), message(&output))
}

/// Runs the program, which must fail. Returns its message.
fn refused(arguments: &[impl AsRef<str>]) -> String {
    let output = program().args(arguments.iter().map(AsRef::as_ref)).output().unwrap();
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    message(&output)
}

/// Imports a model into the stand-in and starts it.
fn import(standin: &StandIn, name: &str, more: &[&str]) {
    let mut all = arguments("import", name);
    all.extend(["--start", "--url", &standin.url()].map(str::to_owned));
    all.extend(more.iter().map(|&word| word.to_owned()));
    run(&all);
}

/// The weights of a text that the stand-in returns.
fn served(standin: &StandIn, id: &str, text: &str) -> Weights {
    let body = json!({"docs": [{"text_field": text}]});
    let path = format!("/_ml/trained_models/{id}/_infer");
    let (status, answer) = ask(standin, "POST", &path, Some(&body));
    assert_eq!(status, 200, "{answer}");
    let weights = &answer["inference_results"][0]["predicted_value"];
    serde_json::from_value(weights.clone()).unwrap_or_else(|_| panic!("{answer}"))
}

/// The metadata of a model in the stand-in.
fn metadata(standin: &StandIn, id: &str) -> Value {
    let (status, answer) = ask(standin, "GET", &format!("/_ml/trained_models/{id}"), None);
    assert_eq!(status, 200, "{answer}");
    answer["trained_model_configs"][0]["metadata"].clone()
}

/// The weights of one row of a reference, by token.
fn expected(output: &Tensor, row: i64, tokens: &[String]) -> Weights {
    let weights = Vec::<f64>::try_from(&output.get(row).to_kind(Kind::Double)).unwrap();
    let positive = tokens.iter().zip(weights).filter(|(_, weight)| *weight > 0.);
    positive.map(|(token, weight)| (token.replace('.', "__"), weight)).collect()
}

#[track_caller]
fn close(found: &Weights, expected: &Weights, name: &str) {
    let largest = expected.values().copied().fold(1., f64::max);
    let weight = |of: &Weights, token: &String| of.get(token).copied().unwrap_or_default();
    for token in found.keys().chain(expected.keys()) {
        let (found, expected) = (weight(found, token), weight(expected, token));
        let difference = (found - expected).abs();
        assert!(difference <= 1e-4 * largest, "{name} {token}: {found}, not {expected}");
    }
}

#[test]
fn query_graph_matches_sentence_transformers() {
    for name in TWO_ROUTES {
        for target in [Target::Any, Target::Serverless] {
            let conversion = convert(name, options(Some("query"), target));
            assert_eq!(conversion.part(), Some("query"));
            let traced = conversion.trace().unwrap();
            let tokenizer = conversion.tokenizer();
            let tokens = tokenizer.vocabulary.vocabulary.len() as i64;
            let fixture = Fixture::named(&format!("sparse/{name}"));
            for case in fixture.part_cases("query", Task::TextExpansion) {
                let padding = tokenizer.special.padding;
                let inputs = as_the_server_sends(&case, tokenizer.kind, padding);
                let found = traced.module.forward(&inputs).unwrap();
                let difference = (&found - case.output.narrow(1, 0, tokens)).abs().max();
                assert!(difference.double_value(&[]) < 1e-6, "{name} {}", case.name);
            }
            // A text without tokens has an empty row.
            let empty = Tensor::zeros([1, 0], (Kind::Int64, tch::Device::Cpu));
            let inputs: Vec<_> =
                (0..tokenizer.kind.inputs()).map(|_| empty.shallow_clone()).collect();
            let found = traced.module.forward(&inputs).unwrap();
            assert_eq!(found.size(), [1, tokens]);
            assert_eq!(found.abs().max().double_value(&[]), 0.);
        }
    }
}

#[test]
fn served_document_and_query_models_match_sentence_transformers() {
    let standin = StandIn::start(standin::Options::default());
    for name in TWO_ROUTES {
        let conversion = convert(name, Options::default());
        assert_eq!((conversion.part(), conversion.task()), (Some("document"), Task::TextExpansion));
        let tokens = &conversion.tokenizer().vocabulary.vocabulary;
        import(&standin, name, &["--es-model-id", &format!("{name}-document")]);
        import(&standin, name, &["--part", "query", "--es-model-id", &format!("{name}-query")]);
        for (part, cases) in [("document", document_cases(name)), ("query", query_cases(name))] {
            let id = format!("{name}-{part}");
            assert_eq!(metadata(&standin, &id)["part"], part);
            for case in cases {
                for (row, text) in case.texts.iter().enumerate() {
                    let expected = expected(&case.output, row as i64, tokens);
                    let found = served(&standin, &id, text);
                    close(&found, &expected, &format!("{id} {}", case.name));
                }
            }
        }
        assert!(served(&standin, &format!("{name}-query"), "").is_empty());
    }
}

#[test]
fn served_dense_and_sparse_models_of_one_encoder_match_their_references() {
    let standin = StandIn::start(standin::Options::default());
    let name = "bge-m3";
    let conversion = convert(name, Options::of_task(Task::TextExpansion));
    assert_eq!(conversion.part(), Some("sparse"));
    let tokens = &conversion.tokenizer().vocabulary.vocabulary;
    import(&standin, name, &["--es-model-id", "dense"]);
    import(&standin, name, &["--part", "sparse", "--es-model-id", "sparse"]);
    import(&standin, name, &["--task-type", "text_expansion", "--es-model-id", "by-task"]);
    assert_eq!(metadata(&standin, "dense")["part"], "dense");
    for id in ["sparse", "by-task"] {
        assert_eq!(metadata(&standin, id)["part"], "sparse");
        let mut weights = 0;
        for case in document_cases(name) {
            for (row, text) in case.texts.iter().enumerate() {
                let expected = expected(&case.output, row as i64, tokens);
                close(&served(&standin, id, text), &expected, &case.name);
                weights += expected.len();
            }
        }
        assert!(weights > 3, "only {weights} weights");
    }
    let (_, answer) = ask(&standin, "GET", "/_ml/trained_models/dense", None);
    let config = &answer["trained_model_configs"][0]["inference_config"];
    assert_eq!(config["text_embedding"]["embedding_size"], 32, "{answer}");
}

/// The form of gte-multilingual-base, on an encoder of another architecture.
#[test]
fn token_classifier_with_one_label_is_a_sparse_model() {
    let copied = tempfile::tempdir().unwrap();
    copy(&Fixture::named("bert/ner").model(), copied.path());
    let path = copied.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let labels = config["id2label"].as_object().unwrap().len() as i64;
    config["id2label"] = json!({"0": "LABEL_0"});
    fs::write(&path, config.to_string()).unwrap();
    for (name, text) in [
        (
            "modules.json",
            r#"[{"path": "", "type": "sentence_transformers.models.Transformer"},
                {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#,
        ),
        ("1_Pooling/config.json", r#"{"pooling_mode": "cls"}"#),
    ] {
        fs::create_dir_all(copied.path().join(name).parent().unwrap()).unwrap();
        fs::write(copied.path().join(name), text).unwrap();
    }
    let (weight, bias) = keep_one_label(&copied.path().join("model.safetensors"), labels);
    let files = ModelFiles::open(copied.path()).unwrap();
    let read = |options: Options| Conversion::read(&files, options, &Progress::quiet()).unwrap();
    assert_eq!(read(Options::default()).task(), Task::TextEmbedding);
    let sparse = read(options(Some("sparse"), Target::Any));
    assert_eq!(sparse.task(), Task::TextExpansion);

    // The same encoder, with its hidden states as the output.
    let states = read(Options::of_task(Task::PassThrough));
    let vocabulary = &sparse.tokenizer().vocabulary;
    let id = |token: &str| vocabulary.id(token).unwrap() as i64;
    let words: Vec<i64> = (20..30).collect();
    let row = [&[id("[CLS]")], &words[..], &words[..4], &[id("[UNK]"), id("[SEP]")]].concat();
    let ids = Tensor::from_slice(&row).unsqueeze(0);
    let positions = Tensor::arange(row.len() as i64, (Kind::Int64, tch::Device::Cpu));
    let inputs = [ids.shallow_clone(), ids.ones_like(), ids.zeros_like(), positions.unsqueeze(0)];
    let hidden = states.forward(&inputs).unwrap();
    let numbers = hidden.linear(&weight, Some(&bias)).squeeze_dim(-1).relu();
    let mut expected = vec![0f64; vocabulary.vocabulary.len()];
    for (place, id) in row.iter().enumerate().skip(1).take(words.len() + 4) {
        let number = numbers.double_value(&[0, place as i64]);
        let weight = &mut expected[*id as usize];
        *weight = weight.max(number);
    }
    let found = Vec::<f64>::try_from(&sparse.forward(&inputs).unwrap().get(0)).unwrap();
    assert!(expected.iter().filter(|weight| **weight > 0.).count() > 2, "{expected:?}");
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
}

/// Shortens the classifier in a safetensors file to its first label, and raises the bias. Returns weight and bias.
fn keep_one_label(path: &Path, labels: i64) -> (Tensor, Tensor) {
    let tensors = Tensor::read_safetensors(path).unwrap();
    let shortened: Vec<(String, Tensor)> = tensors
        .into_iter()
        .map(|(name, tensor)| match name.starts_with("classifier.") {
            true => {
                assert_eq!(tensor.size()[0], labels);
                // With a larger bias, relu keeps most weights.
                let more = if name.ends_with("bias") { 1. } else { 0. };
                (name, tensor.narrow(0, 0, 1).contiguous() + more)
            }
            false => (name, tensor),
        })
        .collect();
    Tensor::write_safetensors(&shortened, path).unwrap();
    let of = |end: &str| {
        let found = shortened.iter().find(|(name, _)| name == &format!("classifier.{end}"));
        found.unwrap().1.shallow_clone()
    };
    (of("weight"), of("bias"))
}

#[test]
fn inspect_lists_the_models_of_a_repository() {
    let inspect = |name: &str, more: &[&str]| {
        let mut all = arguments("inspect", name);
        all.extend(more.iter().map(|&word| word.to_owned()));
        run(&all).0
    };
    let page = inspect("router-folders", &[]);
    says(&page, &["Models of the repository", "document        text_expansion (chosen)"]);
    says(&page, &["query           text_expansion (--part query)"]);
    let page = inspect("router-folders", &["--part", "query"]);
    says(
        &page,
        &["a table with one weight for each token", "query           text_expansion (chosen)"],
    );
    says(&page, &["\"with_special_tokens\": false", "PUT _ml/trained_models/", "__query"]);
    says(&page, &["rust-eland import", "--part query"]);
    let page: Value = serde_json::from_str(&inspect("bge-m3", &["--output", "json"])).unwrap();
    let parts = json!([
        {"part": "dense", "task": "text_embedding", "is_chosen": true},
        {"part": "sparse", "task": "text_expansion", "is_chosen": false},
    ]);
    assert_eq!(page["parts"], parts);
    let page = run(&[
        "inspect",
        "--hub-model-id",
        &Fixture::named("bert/st-mean").model().display().to_string(),
    ])
    .0;
    assert!(!page.contains("Models of the repository"), "{page}");
}

#[test]
fn default_id_ends_in_the_part() {
    let standin = StandIn::start(standin::Options::default());
    let parent = tempfile::tempdir().unwrap();
    let repository = parent.path().join("router");
    copy(&model("router-folders"), &repository);
    for part in [&[][..], &["--part", "query"]] {
        let output = program()
            .current_dir(parent.path())
            .args(["import", "--hub-model-id", "router", "--url", &standin.url()])
            .args(part)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", message(&output));
        if part.is_empty() {
            says(
                &message(&output),
                &["the model document of the repository, which also provides query"],
            );
        }
    }
    assert_eq!(metadata(&standin, "router")["part"], "document");
    assert_eq!(metadata(&standin, "router__query")["part"], "query");
}

#[test]
fn damaged_tables_of_token_weights_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    copy(&model("opensearch-doc-v2-mini"), folder.path());
    let id = folder.path().display().to_string();
    let plan = ["inspect", "--hub-model-id", &id, "--part", "query"];
    let path = folder.path().join("idf.json");
    let text = fs::read_to_string(&path).unwrap();
    let (start, _) = text.split_once(':').unwrap();
    let (_, rest) = text.split_once(',').unwrap();
    for number in ["NaN", "Infinity", "1e300"] {
        fs::write(&path, format!("{start}: {number},{rest}")).unwrap();
        says(&refused(&plan), &["idf.json cannot be used", "not a finite number"]);
    }
    for all in ["{}", r#"{"no token": 1, "none either": 2}"#] {
        fs::write(&path, all).unwrap();
        says(&refused(&plan), &["idf.json cannot be used", "0 of its"]);
    }
    // The folder of a route.
    let folder = tempfile::tempdir().unwrap();
    copy(&model("router-folders"), folder.path());
    let route = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let is_query = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().contains("query");
    fs::remove_dir_all(route.into_iter().find(is_query).unwrap()).unwrap();
    let id = folder.path().display().to_string();
    let text = refused(&["inspect", "--hub-model-id", &id, "--part", "query"]);
    says(&text, &["contains no query", "router_config.json names this folder"]);
}

#[test]
fn unknown_part_is_refused_with_the_list() {
    let plan = [&arguments("inspect", "router-folders")[..], &["--part".into(), "passage".into()]];
    let text = refused(&plan.concat());
    says(&text, &["provides document and query, and no model \"passage\""]);
    says(&text, &["Set --part to document or query"]);
    let one = Fixture::named("bert/st-mean").model().display().to_string();
    let text = refused(&["inspect", "--hub-model-id", &one, "--part", "query"]);
    says(&text, &["provides one model, and no model \"query\"", "Remove --part"]);
    // The sparse model of a repository has no other task.
    let more = ["--part", "sparse", "--task-type", "text_embedding"].map(str::to_owned);
    let text = refused(&[&arguments("inspect", "bge-m3")[..], &more].concat());
    says(&text, &["cannot serve text_embedding: sparse is the sparse model", "text_expansion"]);
}

#[test]
fn apply_imports_one_model_of_a_repository_per_line() {
    let standin = StandIn::start(standin::Options::default());
    let parent = tempfile::tempdir().unwrap();
    for name in ["router-folders", "bge-m3"] {
        copy(&model(name), &parent.path().join(name));
    }
    let file = "\
models:
  - hub-model-id: router-folders
  - hub-model-id: router-folders
    part: query
  - hub-model-id: bge-m3
  - hub-model-id: bge-m3
    part: sparse
";
    fs::write(parent.path().join("models.yaml"), file).unwrap();
    for result in ["stored", "unchanged"] {
        let output = program()
            .current_dir(parent.path())
            .args(["apply", "models.yaml", "--output", "json", "--url", &standin.url()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", message(&output));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let ids = ["router-folders", "router-folders__query", "bge-m3", "bge-m3__sparse"];
        for (id, applied) in ids.iter().zip(answer["models"].as_array().unwrap()) {
            assert_eq!((&applied["model_id"], &applied["result"]), (&json!(id), &json!(result)));
        }
    }
}

#[test]
fn bundle_of_a_part_restores_its_metadata_and_answers() {
    let standin = StandIn::start(standin::Options::default());
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().display().to_string();
    let mut all = arguments("export", "router-folders");
    all.extend(["--part", "query", "--es-model-id", "q", "--output", &output].map(str::to_owned));
    run(&all);
    let bundle = format!("{output}/q.metadata.json");
    let (imported, _) = run(&["import", "--start", "--url", &standin.url(), "--bundle", &bundle]);
    says(&imported, &["q started"]);
    assert_eq!(metadata(&standin, "q")["part"], "query");
    let tokens = convert("router-folders", Options::default());
    let case = query_cases("router-folders").remove(0);
    let expected = expected(&case.output, 0, &tokens.tokenizer().vocabulary.vocabulary);
    close(&served(&standin, "q", &case.texts[0]), &expected, "served");
    let weights = |more: &[&str]| {
        let all = [&["infer", "--output", "json"][..], more, &[&case.texts[0]]].concat();
        let answer: Value = serde_json::from_str(&run(&all).0).unwrap();
        serde_json::from_value::<Weights>(answer["predicted_value"].clone()).unwrap()
    };
    close(&weights(&["--bundle", &bundle]), &expected, "bundle");
    let source = model("router-folders").display().to_string();
    close(&weights(&["--hub-model-id", &source, "--part", "query"]), &expected, "source");
}

#[test]
fn tokenize_shows_the_rows_of_a_part() {
    let mut all = arguments("tokenize", "router-folders");
    all.extend(["--part", "query", "--output", "json", "the river"].map(str::to_owned));
    let comparison: Value = serde_json::from_str(&run(&all).0).unwrap();
    assert_eq!(comparison["server"], comparison["model"], "{comparison}");
    assert_eq!(comparison["server"].as_array().unwrap().len(), 2, "{comparison}");
}

#[test]
fn verify_finds_the_part_in_the_metadata() {
    let standin = StandIn::start(standin::Options::default());
    import(&standin, "bge-m3", &["--part", "sparse", "--es-model-id", "sparse"]);
    import(&standin, "router-folders", &["--part", "query", "--es-model-id", "query"]);
    for (id, name) in [("sparse", "bge-m3"), ("query", "router-folders")] {
        let mut all = arguments("verify", name);
        all.extend(["--es-model-id", id, "--url", &standin.url()].map(str::to_owned));
        let output = program().args(&all).output().unwrap();
        // Texts with emoji have other tokens in Elasticsearch.
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(!text.contains("numbers:") && !text.contains("setting "), "{text}");
        says(&text, &["verified: "]);
    }
}

#[test]
fn guided_import_asks_for_the_part() {
    let standin = StandIn::start(standin::Options::default());
    let mut terminal = Terminal::start(&["import"], &[]);
    terminal.connect(&standin.url());
    terminal.wait_for("Model: its hub id, a folder");
    terminal.type_line(&model("router-folders").display().to_string());
    terminal.wait_for("Model of the repository");
    // One line down: the model for queries.
    terminal.type_text("\x1b[B\r");
    terminal.wait_for("Task");
    terminal.type_text("\r");
    terminal.answer_last_questions("queries", "n");
    let plan = terminal.wait_for("Import the model?");
    says(&plan, &["a table with one weight for each token", "--part query"]);
    terminal.type_text("y");
    let (rest, code) = terminal.end();
    assert_eq!(code, Some(0), "{rest}");
    assert_eq!(metadata(&standin, "queries")["part"], "query");
}
