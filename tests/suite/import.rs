//! Imports into the stand-in and compares its inference results.

use std::process::Command;

use rust_eland::tasks::Task;
use serde_json::{Value, json};
use standin::{Options, StandIn, Version};
use tch::{Kind, Tensor};

use crate::fixtures::{Case, Fixture};
use crate::program::{ask, clean, message, program};

/// Imports and starts a fixture.
pub fn import(standin: &StandIn, fixture: &Fixture, task: Task) {
    let output = program()
        .args(["import", "--start", "--clear-previous", "--es-model-id", "m"])
        .args(["--url", &standin.url(), "--task-type", task.name()])
        .arg("--hub-model-id")
        .arg(fixture.model())
        .args(fixture.has_inexact_tokenizer().then_some("--allow-inexact-tokenizer"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{} {task}: {}", fixture.name, message(&output));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "m started\n");
}

/// Inference results of the stand-in for each row of a case.
pub fn infer(standin: &StandIn, task: Task, texts: &[String]) -> Value {
    let (document, options) = match (task, texts) {
        (Task::QuestionAnswering, [question, text]) => (text, json!({ "question": question })),
        (Task::TextSimilarity, [query, text]) => (text, json!({ "text": query })),
        (Task::ZeroShotClassification, [text, hypothesis]) => {
            let label = hypothesis.strip_prefix("This example is ").unwrap();
            let options =
                json!({"labels": [label.strip_suffix('.').unwrap()], "multi_label": true});
            (text, options)
        }
        (Task::TextClassification, [text]) => (text, json!({"num_top_classes": -1})),
        (_, [text]) => (text, json!({})),
        other => panic!("{other:?}"),
    };
    let body =
        json!({"docs": [{"text_field": document}], "inference_config": {task.name(): options}});
    let (status, answer) = ask(standin, "POST", "/_ml/trained_models/m/_infer", Some(&body));
    assert_eq!(status, 200, "{answer}");
    answer["inference_results"][0].clone()
}

#[track_caller]
fn close(ours: f64, reference: f64, of: &str) {
    assert!(
        (ours - reference).abs() <= 1e-4 * reference.abs().max(1.),
        "{of}: {ours} for {reference}"
    );
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(tensor.to_kind(Kind::Double).flatten(0, -1)).unwrap()
}

/// Compares a result with Hugging Face's output for the row, in the form of the task's result.
pub fn compare(
    answer: &Value,
    task: Task,
    case: &Case,
    row: i64,
    config: &Value,
    vocabulary: &[String],
) {
    let of = &format!("{task} {} {row}", case.name);
    let length = case.attention_mask.get(row).sum(Kind::Int64).int64_value(&[]);
    let output = match task {
        Task::QuestionAnswering => case.output.select(1, row).narrow(1, 0, length),
        Task::FillMask | Task::Ner | Task::PassThrough => case.output.get(row).narrow(0, 0, length),
        _ => case.output.get(row),
    };
    let predicted = &answer["predicted_value"];
    let labels = &config["classification_labels"];
    let bert = ["bert", "deberta_v2"].iter().any(|kind| config["tokenization"].get(kind).is_some());
    // MPNet's vocabulary has the tokens of BERT, too.
    let id = |[of_bert, of_roberta]: [&str; 2]| {
        let names = if bert { [of_bert, of_roberta] } else { [of_roberta, of_bert] };
        let place = |name: &&str| vocabulary.iter().position(|token| token == name);
        names.iter().find_map(place).unwrap() as i64
    };
    match task {
        Task::TextEmbedding => {
            let ours = predicted.as_array().unwrap();
            let reference = numbers(&output);
            assert_eq!(ours.len(), reference.len(), "{of}");
            assert_eq!(config["embedding_size"], json!(reference.len()));
            for (ours, reference) in ours.iter().zip(reference) {
                close(ours.as_f64().unwrap(), reference, of);
            }
        }
        Task::PassThrough => {
            let ours = predicted.as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
            let ours: Vec<f64> = ours.map(|number| number.as_f64().unwrap()).collect();
            let reference = numbers(&output);
            assert_eq!(ours.len(), reference.len(), "{of}");
            for (ours, reference) in ours.into_iter().zip(reference) {
                close(ours, reference, of);
            }
        }
        Task::TextExpansion => {
            let ours = predicted.as_object().unwrap();
            let mut positive = 0;
            let most = numbers(&output).into_iter().fold(0., f64::max);
            for (token, reference) in vocabulary.iter().zip(numbers(&output)) {
                if reference > 1e-3 {
                    positive += 1;
                    let weight = ours.get(&token.replace('.', "__"));
                    close(weight.and_then(Value::as_f64).unwrap_or(0.), reference, of);
                }
            }
            // Only a text whose tokens have no weight has an empty result.
            assert!(positive > 0 || most == 0. && ours.is_empty(), "{of}: {most}, {ours:?}");
            assert!(ours.len() >= positive, "{of}: {} of {positive}", ours.len());
        }
        Task::TextSimilarity => {
            close(predicted.as_f64().unwrap(), output.double_value(&[0]), of);
        }
        Task::TextClassification => {
            let probabilities = numbers(&output.softmax(-1, Kind::Double));
            let classes = answer["top_classes"].as_array().unwrap();
            assert_eq!(classes.len(), probabilities.len(), "{of}");
            for class in classes {
                let label =
                    labels.as_array().unwrap().iter().position(|l| *l == class["class_name"]);
                close(
                    class["class_probability"].as_f64().unwrap(),
                    probabilities[label.unwrap()],
                    of,
                );
            }
        }
        Task::ZeroShotClassification => {
            // Probability of entailment against contradiction, as for independent labels.
            let of_label = |wanted: &str| {
                let labels = labels.as_array().unwrap();
                let found =
                    labels.iter().position(|l| l.as_str().unwrap().to_lowercase() == wanted);
                output.double_value(&[found.unwrap() as i64])
            };
            let odds = (of_label("entailment") - of_label("contradiction")).exp();
            close(answer["prediction_probability"].as_f64().unwrap(), odds / (1. + odds), of);
        }
        Task::FillMask => {
            let of_llama = vocabulary.iter().position(|token| token == "<|mask|>");
            let mask = of_llama.map_or_else(|| id(["[MASK]", "<mask>"]), |place| place as i64);
            let places = case.input_ids.get(row).eq(mask).nonzero();
            // Rows of the embedding table beyond the vocabulary are not tokens. The graphs of some architectures return their logits.
            let all = output.get(places.int64_value(&[0, 0]));
            let named = all.narrow(0, 0, all.size()[0].min(vocabulary.len() as i64));
            let best = named.argmax(-1, false).int64_value(&[]);
            let probabilities =
                [named, all].map(|it| it.softmax(-1, Kind::Double).double_value(&[best]));
            let ours = answer["prediction_probability"].as_f64().unwrap();
            let is_near = |reference: &f64| (ours - reference).abs() <= 1e-4;
            assert!(probabilities.iter().any(is_near), "{of}: {ours} for {probabilities:?}");
            // Word pieces are decoded; words of ASCII letters are unchanged.
            let token = vocabulary[best as usize].trim_start_matches(['Ġ', '▁']);
            if token.chars().all(|c| c.is_ascii_alphanumeric()) {
                assert_eq!(predicted.as_str().unwrap(), token, "{of}");
            }
        }
        Task::Ner => {
            // Words with one piece have the label of their token.
            let best = output.argmax(-1, false);
            let outside = labels.as_array().unwrap().iter().position(|l| l == "O").unwrap() as i64;
            let starts = case.input_ids.int64_value(&[row, 0]) == id(["[CLS]", "<s>"]);
            let inner = best.narrow(0, starts.into(), length - 1 - i64::from(starts));
            let tagged = inner.ne(outside).sum(Kind::Int64).int64_value(&[]);
            let entities = answer["entities"].as_array().unwrap();
            assert!(entities.len() as i64 <= tagged, "{of}");
            if tagged == inner.size()[0] {
                assert!(!entities.is_empty(), "{of}");
            }
        }
        Task::QuestionAnswering => {
            // One separator, or two in the RoBERTa family, separates the texts.
            let separator = id(["[SEP]", "</s>"]);
            let ids = case.input_ids.get(row).narrow(0, 0, length);
            let second = ids.eq(separator).nonzero().int64_value(&[0, 0]) + 1;
            let first = second + i64::from(ids.int64_value(&[second]) == separator);
            // The server applies the softmax to the tokens of the text and the first token.
            let kept = Tensor::full([length], f64::NEG_INFINITY, (Kind::Double, output.device()));
            let _ = kept.narrow(0, first, length - 1 - first).fill_(0.);
            let _ = kept.narrow(0, 0, 1).fill_(0.);
            let weigh = |logits: Tensor| numbers(&(logits + &kept).softmax(-1, Kind::Double));
            let (start, end) = (weigh(output.get(0)), weigh(output.get(1)));
            let inner = first as usize..length as usize - 1;
            let score = inner
                .clone()
                .flat_map(|s| (s..inner.end.min(s + 15)).map(move |e| (s, e)))
                .map(|(s, e)| start[s] * end[e])
                .fold(0., f64::max);
            close(answer["prediction_probability"].as_f64().unwrap(), score, of);
        }
    }
}

/// Imports a fixture for every task and compares the inference results for its texts.
fn served_as_hugging_face_computes(standin: &StandIn, fixture: &Fixture) {
    for task in fixture.tasks() {
        import(standin, fixture, task);
        let stored = standin.configuration("m").unwrap();
        let config = &stored["inference_config"][task.name()];
        let vocabulary = standin.vocabulary("m").unwrap().vocabulary;
        let mut compared = 0;
        for case in fixture.cases(task) {
            for (row, texts) in case.texts.iter().flatten().enumerate() {
                // MobileBERT's last token uses the next token's embedding, so Hugging Face's output for a padded row differs from the output
                // for the text alone, which the server sends; numbers.rs compares the padded rows.
                let padded = case.attention_mask.get(row as i64).min().int64_value(&[]) == 0;
                // The scaling of NomicBERT counts padding, too.
                let counts_padding = fixture.name == "nomic/scaling-factor";
                if padded && (counts_padding || fixture.name.starts_with("mobilebert")) {
                    continue;
                }
                // The server's Unigram tokenizer rejects an empty text; numbers.rs compares it in the graph.
                let is_unigram = fixture.name == "static/potion-multilingual-128M";
                if is_unigram && texts.iter().any(String::is_empty) {
                    continue;
                }
                // The server's second separator makes the longest row too long, and question answering splits it.
                let drops_separator = ["albert", "deberta", "modernbert"];
                let is_one = |name: &&str| fixture.name == format!("{name}/question-answering");
                if case.name == "max" && drops_separator.iter().any(is_one) {
                    continue;
                }
                // ALBERT's mask has another name in the uploaded vocabulary.
                let named = |text: &String| match fixture.architecture() {
                    "albert" => text.replace("[MASK]", "<mask>"),
                    _ => text.clone(),
                };
                let texts: Vec<String> = texts.iter().map(named).collect();
                let answer = infer(standin, task, &texts);
                if answer["is_truncated"] != json!(true) {
                    compare(&answer, task, &case, row as i64, config, &vocabulary);
                    compared += 1;
                }
            }
        }
        let texts = fixture.cases(task).iter().any(|case| case.texts.is_some());
        assert!(compared >= 2 || !texts, "{} {task}: only {compared} texts compared", fixture.name);
    }
}

/// Imports all fixtures of the architectures. numbers.rs covers the Japanese ones, whose texts need an analyser that the stand-in
/// does not have.
fn served(architectures: &[&str]) {
    let standin = StandIn::start(Options::default());
    let fixtures = Fixture::all().into_iter().filter(|fixture| {
        let architecture = fixture.name.split('/').next().unwrap();
        architectures.contains(&architecture) && !fixture.name.starts_with("bert/japanese")
    });
    for fixture in fixtures {
        served_as_hugging_face_computes(&standin, &fixture);
    }
}

#[test]
fn bert_inference_matches_hugging_face() {
    served(&["bert"]);
}

#[test]
fn roberta_family_inference_matches_hugging_face() {
    served(&["roberta", "camembert", "xlm-roberta"]);
}

#[test]
fn distilbert_electra_and_mpnet_inference_matches_hugging_face() {
    served(&["distilbert", "electra", "mpnet"]);
}

#[test]
fn sparse_encoder_inference_matches_sentence_transformers() {
    served(&["sparse"]);
}

#[test]
fn bart_dpr_and_retribert_inference_matches_hugging_face() {
    served(&["bart", "dpr", "retribert"]);
}

#[test]
fn mobilebert_and_squeezebert_inference_matches_hugging_face() {
    served(&["mobilebert", "squeezebert"]);
}

#[test]
fn deberta_v1_and_ernie_inference_matches_hugging_face() {
    served(&["deberta", "ernie"]);
}

#[test]
fn longformer_t5_and_albert_inference_matches_hugging_face() {
    served(&["albert", "longformer", "t5"]);
}

#[test]
fn deberta_v2_and_v3_inference_matches_hugging_face() {
    served(&["deberta-v2"]);
}

#[test]
fn modernbert_inference_matches_hugging_face() {
    served(&["modernbert"]);
}

#[test]
fn gemma_3_inference_matches_hugging_face() {
    served(&["gemma3"]);
}

#[test]
fn gte_nomic_and_jina_inference_matches_references() {
    served(&["gte", "jina", "nomic"]);
}

#[test]
fn served_eurobert_and_jina_3_models_match_references() {
    served(&["eurobert", "jina3"]);
}

#[test]
fn static_embedding_inference_matches_its_libraries() {
    served(&["static"]);
}

#[test]
fn old_cluster_gets_a_supported_graph_and_configuration() {
    for version in ["8.7.0", "8.12.2"] {
        let version = version.parse::<Version>().unwrap();
        let standin = StandIn::start(Options { version, ..Options::default() });
        import(&standin, &Fixture::named("bert/st-mean"), Task::TextEmbedding);
        let config = standin.configuration("m").unwrap();
        let known = version >= "8.8.0".parse().unwrap();
        let size = &config["inference_config"]["text_embedding"]["embedding_size"];
        assert_eq!(size.is_number(), known, "{config}");
        served_as_hugging_face_computes(&standin, &Fixture::named("bert/cross-encoder"));
    }
}

#[test]
fn program_under_elands_name_accepts_elands_options() {
    let standin = StandIn::start(Options {
        credentials: vec![standin::Credential::user("elastic", "p@ss")],
        ..Options::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("eland_import_hub_model");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rust-eland"), &link).unwrap();
    let model = Fixture::named("bert/st-mean").model();
    let output = clean(Command::new(link))
        .args(["--url", &standin.url(), "-u", "elastic", "-p", "p@ss", "--insecure", "--start"])
        .args(["--task-type", "text_embedding", "--es-model-id", "m", "--clear-previous"])
        .args(["--ingest-prefix", "passage: ", "--search-prefix", "query: "])
        .args(["--max-model-input-length", "20", "--hub-access-token", "hf_x", "--hub-model-id"])
        .arg(model)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let config = standin.configuration("m").unwrap();
    assert_eq!(config["prefix_strings"], json!({"ingest": "passage: ", "search": "query: "}));
    let tokenization = &config["inference_config"]["text_embedding"]["tokenization"]["bert"];
    assert_eq!(tokenization["max_sequence_length"], 20);
    assert!(!message(&output).contains("p@ss") && !message(&output).contains("hf_x"));
}

#[test]
fn credentials_are_accepted_from_every_source() {
    let key = "aWQ6a2V5"; // id:key
    let standin = StandIn::start(Options {
        credentials: vec![
            standin::Credential::user("me", "p@ss:word"),
            standin::Credential::api_key(key),
        ],
        ..Options::default()
    });
    let host = standin.url().replace("http://", "");
    let url = standin.url();
    let arguments = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let ways = [
        (arguments(&["--url", &format!("http://me:p%40ss%3Aword@{host}")]), vec![]),
        (arguments(&["--url", &url, "-u", "me", "-p", "p@ss:word"]), vec![]),
        (arguments(&["--url", &url, "--es-username", "me", "--es-password", "p@ss:word"]), vec![]),
        (arguments(&["--url", &url, "--es-api-key", key]), vec![]),
        (arguments(&["--url", &url, "--es-api-key", "id:key", "-u", "no", "-p", "one"]), vec![]),
        (vec![], vec![("ES_URL", &*url), ("ES_USERNAME", "me"), ("ES_PASSWORD", "p@ss:word")]),
        (vec![], vec![("ES_URL", &*url), ("ES_API_KEY", key)]),
    ];
    for (arguments, environment) in ways {
        let output = program()
            .args(["import", "--clear-previous", "--es-model-id", "m", "--hub-model-id"])
            .arg(Fixture::named("bert/base").model())
            .args(["--task-type", "pass-through"])
            .args(&arguments)
            .envs(environment)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", message(&output));
    }
}

#[test]
fn requests_have_the_content_of_elands() {
    let standin = StandIn::start(Options::default());
    import(&standin, &Fixture::named("bert/question-answering"), Task::QuestionAnswering);
    let sent: Vec<_> = standin
        .requests()
        .into_iter()
        .filter(|request| request.method != "GET")
        .map(|request| (format!("{} {}", request.method, request.path), request))
        .collect();
    let lines: Vec<_> = sent.iter().map(|(line, _)| line.as_str()).collect();
    assert_eq!(
        lines,
        [
            "POST /_security/user/_has_privileges",
            "PUT /_ml/trained_models/m",
            "PUT /_ml/trained_models/m/vocabulary",
            "PUT /_ml/trained_models/m/definition/0",
            "POST /_ml/trained_models/m/deployment/_start",
        ]
    );
    let mut body = sent[1].1.body.clone().unwrap();
    assert!(body["metadata"]["import_id"].take().as_str().unwrap().len() == 32);
    assert!(body["metadata"]["definition_sha256"].take().as_str().unwrap().len() == 64);
    assert!(body["metadata"]["bundle_sha256"].take().as_str().unwrap().len() == 64);
    for figure in ["per_deployment_memory_bytes", "per_allocation_memory_bytes"] {
        assert!(body["metadata"][figure].take().as_u64().unwrap() > 10_000);
    }
    assert_eq!(
        body,
        json!({
            "description": "Model m for task type 'question_answering'",
            "model_type": "pytorch",
            "inference_config": {"question_answering": {"tokenization": {"bert": {
                "do_lower_case": true, "max_sequence_length": 64, "span": 21, "truncate": "none"}}}},
            "input": {"field_names": ["text_field"]},
            "metadata": {"per_deployment_memory_bytes": null, "per_allocation_memory_bytes": null,
                "definition_sha256": null, "import_id": null, "bundle_sha256": null},
        })
    );
}
