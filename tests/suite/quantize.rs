//! Quantized models match PyTorch, have a correct report, and are not uploaded if the agreement is too low.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rust_eland::conversion::{
    Conversion, ConversionError, Options, Quantize, QuantizeScheme, ServerRows,
};
use rust_eland::mapped_file::MappedFile;
use rust_eland::segmented_bytes::SegmentedBytes;
use rust_eland::server_tokenization::Truncate;
use rust_eland::source::ModelFiles;
use rust_eland::tasks::Task;
use rust_eland::tasks::agreement::Row;
use rust_eland::torchscript::{Module, TorchError, server_inputs};
use serde::Deserialize;
use serde_json::{Value, json};
use standin::{Options as StandInOptions, StandIn};
use tch::{Kind, Tensor};

use crate::fixtures::Fixture;
use crate::program::{ask, message, program, says};

/// `tests/fixtures/quantized.json`: results of PyTorch's `quantize_dynamic`.
#[derive(Deserialize)]
struct Reference {
    layers: Vec<Layer>,
    #[serde(rename = "bert/ner")]
    ner: BTreeMap<String, Weights>,
}

#[derive(Deserialize)]
struct Layer {
    name: String,
    weight: Vec<Vec<f32>>,
    bias: Option<Vec<f32>>,
    input: Vec<Vec<f32>>,
    output: Vec<Vec<f32>>,
    #[serde(flatten)]
    quantized: Weights,
}

#[derive(Deserialize)]
struct Weights {
    scale: f64,
    int8: String,
}

impl Weights {
    /// Asserts that an archive contains exactly these integers and this scale as a pickled float.
    #[track_caller]
    fn are_in(&self, archive: &[u8], name: &str) {
        let holds = |bytes: &[u8]| archive.windows(bytes.len()).any(|window| window == bytes);
        assert!(holds(&STANDARD.decode(&self.int8).unwrap()), "{name}: other 8-bit weights");
        let scale = [&b"G"[..], &self.scale.to_be_bytes()].concat();
        assert!(holds(&scale), "{name}: the scale is not {}", self.scale);
    }
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("../fixtures/quantized.json")).unwrap()
}

fn matrix(rows: &[Vec<f32>]) -> Tensor {
    Tensor::from_slice(&rows.concat()).view([rows.len() as i64, -1])
}

fn saved(module: &Module) -> Vec<u8> {
    let mut archive = Vec::new();
    module.save(&mut archive).unwrap();
    archive
}

#[test]
fn quantized_layer_matches_pytorch() {
    for layer in reference().layers {
        let (weight, input) = (matrix(&layer.weight), [matrix(&layer.input)]);
        let bias = layer.bias.as_deref().map(Tensor::from_slice);
        let module = Module::trace(&input, |inputs| -> Result<Tensor, TorchError> {
            Ok(inputs[0].f_linear(&weight, bias.as_ref())?)
        });
        let (module, quantized) = module.unwrap().quantize().unwrap();
        assert_eq!((quantized.layers, quantized.kept), (1, 0));
        layer.quantized.are_in(&saved(&module), &layer.name);
        let expected = matrix(&layer.output);
        let difference = (module.forward(&input).unwrap() - &expected).abs().max();
        // Kernels of other processors may round the 8-bit input differently.
        let share = if cfg!(target_arch = "x86_64") { 1e-6 } else { 2e-2 };
        let allowed = share * expected.abs().max().double_value(&[]);
        assert!(difference.double_value(&[]) <= allowed, "{}: {difference:?}", layer.name);
    }
}

#[test]
fn weight_with_nan_is_rejected() {
    for value in [f64::NAN, f64::INFINITY] {
        let (weight, input) = (
            Tensor::ones([2, 2], (Kind::Float, tch::Device::Cpu)) * value,
            [Tensor::from_slice2(&[[1f32, 2.]])],
        );
        let module = Module::trace(&input, |inputs| -> Result<Tensor, TorchError> {
            Ok(inputs[0].f_linear::<Tensor>(&weight, None)?)
        });
        let error = module.unwrap().quantize().err().unwrap().to_string();
        says(&error, &["a weight that is not finite"]);
    }
}

/// A module with every case of quantization: a layer that is called twice, linear layers with computed weights, a convolution, an
/// embedding.
#[test]
fn shared_layer_is_counted_and_packed_once() {
    let of = (Kind::Float, tch::Device::Cpu);
    let weight = Tensor::arange(16, of).view([4, 4]) / 16;
    let kernel = Tensor::ones([4, 4, 1], of);
    let table = Tensor::arange(40, of).view([10, 4]) / 40;
    let ids = [Tensor::from_slice2(&[[1i64, 2, 3]])];
    let forward = |inputs: &[Tensor]| -> Result<Tensor, TorchError> {
        let linear = |x: &Tensor, weight: &Tensor| x.f_linear::<Tensor>(weight, None);
        let words = Tensor::f_embedding(&table, &inputs[0], -1, false, false)?;
        let twice = linear(&linear(&words, &weight)?, &weight)?;
        let own = linear(&twice, &twice.f_squeeze_dim(0)?)?;
        let channels = linear(&own, &Tensor::f_ones([4, 3], of)?)?.f_transpose(1, 2)?;
        Ok(channels.f_conv1d(&kernel, None::<&Tensor>, 1, 0, 1, 1)?)
    };
    let (module, quantized) = Module::trace(&ids, forward).unwrap().quantize().unwrap();
    let kinds = module.operations().unwrap();
    assert_eq!((quantized.layers, quantized.kept), (1, 3), "{kinds:?}");
    assert_eq!(kinds["quantized::linear_dynamic"], 2, "{kinds:?}");
    let (exact, found) = (forward(&ids).unwrap(), module.forward(&ids).unwrap());
    let share = (&found - &exact).abs().max().double_value(&[]) / exact.max().double_value(&[]);
    assert!(share > 0. && share < 0.05, "{share}");
}

fn of_scheme(scheme: QuantizeScheme) -> Quantize {
    let mut quantize = Quantize::default();
    quantize.scheme = scheme;
    quantize
}

fn convert(fixture: &Fixture, task: Task, quantize: Option<Quantize>) -> Conversion {
    let files = ModelFiles::open(&fixture.model()).unwrap();
    let mut options = Options::of_task(task);
    options.quantize = quantize;
    Conversion::read(&files, options, &rust_eland::observer::Progress::quiet()).unwrap()
}

/// Writes an archive to a file and maps the file.
fn mapped(archive: &[u8], folder: &Path) -> Arc<SegmentedBytes> {
    let path = folder.join("m.pt");
    fs::write(&path, archive).unwrap();
    Arc::new(MappedFile::open(&path).unwrap().into())
}

#[test]
fn quantized_model_has_the_weights_of_pytorch() {
    let conversion =
        convert(&Fixture::named("bert/ner"), Task::Ner, Some(of_scheme(QuantizeScheme::Eland)));
    let traced = conversion.trace().unwrap();
    let layers = reference().ner;
    assert_eq!(traced.quantized.unwrap().layers, layers.len());
    let archive = saved(&traced.module);
    for (name, weights) in layers {
        weights.are_in(&archive, &name);
    }
}

#[test]
fn every_architecture_and_every_task_is_quantized() {
    let texts: Arc<[String]> = ["What is the sun made of?", "The sun is a star.", "[MASK] <mask>"]
        .map(str::to_owned)
        .into();
    let folder = tempfile::tempdir().unwrap();
    let mut done: BTreeMap<(String, Task), String> = BTreeMap::new();
    for fixture in Fixture::all() {
        let architecture = fixture.name.split('/').next().unwrap().to_owned();
        if architecture == "static" {
            // A table has no linear layer.
            continue;
        }
        for task in fixture.tasks() {
            // Each architecture and each task once, because every report takes seconds.
            if done.keys().any(|known| known.0 == architecture)
                && done.keys().any(|known| known.1 == task)
            {
                continue;
            }
            let name = format!("{} {task}", fixture.name);
            let mut quantize = Quantize::default();
            quantize.texts = Some(Arc::clone(&texts));
            quantize.min_agreement = Some(0.);
            let conversion = convert(&fixture, task, Some(quantize));
            let traced = conversion.trace().unwrap_or_else(|error| panic!("{name}: {error}"));
            let archive = saved(&traced.module);
            for hook in ["__getstate__", "__setstate__"] {
                let found = archive.windows(hook.len()).any(|bytes| bytes == hook.as_bytes());
                assert!(!found, "{name} holds {hook}");
            }
            let report = match conversion.check(&traced, mapped(&archive, folder.path())) {
                Ok(saved) => saved.quantization.unwrap(),
                // With random weights, three texts may be ranked differently.
                Err(ConversionError::Agreement { report, .. }) => *report,
                Err(error) => panic!("{name}: {error}"),
            };
            assert!(report.layers > 1 && report.texts > 0, "{name}: {report:?}");
            assert_eq!(report.tables, 1, "{name}: {report:?}");
            let (agreement, extreme) = (report.agreement[0], report.agreement[1]);
            let range = match task {
                Task::TextSimilarity | Task::TextEmbedding => -1. ..=1.0001,
                // With random weights, the best spans of three texts are nearly equal to others.
                Task::QuestionAnswering => 0. ..=1.0001,
                _ => 0.5..=1.0001,
            };
            assert!(range.contains(&agreement.value), "{name}: {report}");
            assert!(extreme.value.is_finite(), "{name}: {report}");
            done.insert((architecture.clone(), task), agreement.name.to_owned());
        }
    }
    assert!(done.len() > 20, "{}", done.len());
    let names = |task| done.iter().filter(move |done| done.0.1 == task).map(|done| done.1.as_str());
    for (task, name) in [
        (Task::FillMask, "top_1_agreement"),
        (Task::Ner, "label_agreement"),
        (Task::PassThrough, "cosine_mean"),
        (Task::QuestionAnswering, "answer_agreement"),
        (Task::TextClassification, "label_agreement"),
        (Task::TextEmbedding, "rank_correlation"),
        (Task::TextExpansion, "top_100_overlap_mean"),
        (Task::TextSimilarity, "rank_correlation"),
        (Task::ZeroShotClassification, "label_agreement"),
    ] {
        assert!(names(task).count() > 0 && names(task).all(|found| found == name), "{task}");
    }
}

/// The built-in calibration texts.
fn sentences() -> Vec<String> {
    let texts: Vec<_> =
        include_str!("../../src/conversion/texts.txt").lines().map(str::to_owned).collect();
    assert_eq!(texts.len(), 64);
    texts
}

/// Compares the server's result with the float model on our tokens of the same text.
fn same_row(conversion: &Conversion, row: &Row, answer: &Value, of: &str) {
    let padding = conversion.tokenizer().special.padding;
    let count = conversion.tokenizer().kind.inputs();
    let tensors = server_inputs(&[&row.ids], padding, count).unwrap();
    let ours = conversion.forward(&tensors).unwrap().to_kind(Kind::Double).flatten(0, -1);
    let ours = Vec::<f64>::try_from(ours).unwrap();
    let theirs: Vec<f64> = match &answer["predicted_value"] {
        Value::Array(rows) => {
            rows.iter().flat_map(|row| row.as_array().unwrap()).filter_map(Value::as_f64).collect()
        }
        score => vec![score.as_f64().unwrap()],
    };
    assert_eq!(ours.len(), theirs.len(), "{of}: {answer}");
    let moved = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0., f64::max);
    assert!(moved < 1e-4, "{of}: {moved}");
}

#[test]
fn calibration_texts_are_tokenized_as_by_the_server() {
    let standin = StandIn::start(StandInOptions::default());
    let texts = sentences();
    let mut truncated = 0;
    for (fixture, task) in [
        ("bert/base", Task::PassThrough),
        ("mpnet/base", Task::PassThrough),
        ("roberta/base", Task::PassThrough),
        ("xlm-roberta/base", Task::PassThrough),
        ("deberta-v2/base", Task::PassThrough),
        ("bert/cross-encoder", Task::TextSimilarity),
        ("roberta/cross-encoder", Task::TextSimilarity),
    ] {
        let fixture = Fixture::named(fixture);
        let output = import(&standin, &fixture.model(), task, &["--start", "--clear-previous"]);
        assert!(output.status.success(), "{}", message(&output));
        let conversion = convert(&fixture, task, None);
        let encoder =
            ServerRows::new(conversion.tokenizer(), conversion.max_sequence_length()).unwrap();
        let question = "Which mountain is the highest?";
        let docs: Vec<_> = texts.iter().map(|text| json!({"text_field": text})).collect();
        let mut body = json!({"docs": docs});
        if task == Task::TextSimilarity {
            body["inference_config"] = json!({"text_similarity": {"text": question}});
        }
        // A busy machine needs more than the default of 10 s.
        let path = "/_ml/trained_models/m/_infer?timeout=120s";
        let (status, answer) = ask(&standin, "POST", path, Some(&body));
        assert_eq!(status, 200, "{answer}");
        let answers = answer["inference_results"].as_array().unwrap();
        assert_eq!(answers.len(), texts.len());
        for (answer, text) in answers.iter().zip(&texts) {
            let row = match task {
                Task::TextSimilarity => encoder.pair(question, text, Truncate::Second),
                _ => encoder.single(text),
            };
            truncated += usize::from(answer["is_truncated"] == true);
            same_row(&conversion, &row.unwrap(), answer, &format!("{} {text}", fixture.name));
        }
    }
    assert!(truncated > 0);
}

#[test]
fn calibration_mask_is_inserted_or_taken_from_the_text() {
    for (name, mask) in [("bert/masked-lm", "[MASK]"), ("roberta/masked-lm", "<mask>")] {
        let conversion = convert(&Fixture::named(name), Task::FillMask, None);
        let tokens = &conversion.tokenizer().vocabulary.vocabulary;
        let id = tokens.iter().position(|token| token == mask).unwrap() as i64;
        let encoder = ServerRows::new(conversion.tokenizer(), 8).unwrap();
        let places = |row: &Row| {
            row.ids
                .iter()
                .enumerate()
                .filter(|(_, i)| **i == id)
                .map(|(at, _)| at)
                .collect::<Vec<_>>()
        };
        let long = "the ".repeat(50);
        for text in
            ["a", "", "the sun", &format!("the {mask} is"), &format!("{long}{mask}{long}"), &long]
        {
            let row = encoder.masked(text).unwrap();
            assert_eq!(places(&row), [row.text.start], "{text}");
            assert!(row.text.len() == 1 && row.ids.len() <= 8, "{text}: {row:?}");
        }
        // If nothing fits, only the text is dropped.
        let tiny = ServerRows::new(conversion.tokenizer(), 2).unwrap();
        assert_eq!(tiny.single("the sun").unwrap().ids.len(), 2);
        assert!(tiny.masked("the sun").unwrap().ids.len() <= 3);
        let pair = encoder.pair(&long, &long, Truncate::Second).unwrap();
        assert_eq!(pair.ids.len(), 8);
        // Elasticsearch refuses the pair.
        assert_eq!(encoder.pair("", "", Truncate::First), None);
    }
}

fn import(standin: &StandIn, model: &Path, task: Task, more: &[&str]) -> Output {
    program()
        .args(["import", "--url", &standin.url(), "--task-type", task.name(), "--es-model-id", "m"])
        .args(more)
        .arg("--hub-model-id")
        .arg(model)
        .output()
        .unwrap()
}

#[test]
fn quantized_model_is_served_and_its_report_stored() {
    let standin = StandIn::start(StandInOptions::default());
    let model = Fixture::named("bert/text-classification").model();
    let more = ["--quantize", "--start", "--output", "json"];
    let output = import(&standin, &model, Task::TextClassification, &more);
    assert!(output.status.success(), "{}", message(&output));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    says(
        &message(&output),
        &[
            "the word embedding table was quantized to 8 bits; 13 linear layers were quantized to 8 bits",
            "label_agreement",
            "over 122 texts",
            "linux-",
            " for the first allocation",
            "one thread of this machine: 8 tokens",
            "32 tokens",
        ],
    );
    let config = standin.configuration("m").unwrap();
    let platform = format!("linux-{}", std::env::consts::ARCH);
    assert_eq!(config["platform_architecture"], platform.as_str());
    let kept = &config["metadata"]["quantization"];
    assert_eq!((&kept["layers"], &kept["texts"]), (&json!(13), &json!(122)), "{kept}");
    assert_eq!(&printed["metadata"]["quantization"], kept);
    assert_eq!((&printed["model_id"], &printed["state"]), (&json!("m"), &json!("stored")));
    assert_eq!(printed["sha256"], config["metadata"]["definition_sha256"]);
    assert_eq!(printed["size"], fs::read(standin.definition("m").unwrap()).unwrap().len());
    assert_eq!(printed["deployment"]["state"], "started", "{printed}");
    let size = &kept["definition_bytes"];
    assert_eq!(size["quantized"], printed["size"], "{kept}");
    assert!(size["quantized"].as_u64() < size["original"].as_u64(), "{kept}");
    let memory = &kept["required_memory_bytes"];
    assert!(memory["quantized"].as_u64() < memory["original"].as_u64(), "{kept}");
    let agreement = kept["agreement"].as_object().unwrap();
    assert_eq!(agreement.len(), 2);
    assert!(agreement["label_agreement"].as_f64().unwrap() > 0.5, "{kept}");
    assert!(agreement["largest_probability_change"].as_f64().unwrap() < 0.5, "{kept}");
    let body = json!({"docs": [{"text_field": "the sun"}]});
    let (status, answer) = ask(&standin, "POST", "/_ml/trained_models/m/_infer", Some(&body));
    assert_eq!(status, 200, "{answer}");

    let quantized = &config["metadata"]["per_deployment_memory_bytes"];
    let output = import(&standin, &model, Task::TextClassification, &["--clear-previous"]);
    assert!(output.status.success(), "{}", message(&output));
    let config = standin.configuration("m").unwrap();
    assert!(config.get("platform_architecture").is_none());
    assert!(config["metadata"].get("quantization").is_none());
    let float = &config["metadata"]["per_deployment_memory_bytes"];
    assert!(quantized.as_u64().unwrap() < float.as_u64().unwrap(), "{quantized} {float}");
}

#[test]
fn agreement_below_the_minimum_is_rejected_before_the_upload() {
    let standin = StandIn::start(StandInOptions::default());
    let model = Fixture::named("bert/st-mean").model();
    let quantize = |least: &str| {
        let more = ["--quantize", "--quantize-min-agreement", least];
        import(&standin, &model, Task::TextEmbedding, &more)
    };
    let output = quantize("1");
    assert_eq!(output.status.code(), Some(3), "{}", message(&output));
    says(
        &message(&output),
        &[
            "agrees too little",
            "rank_correlation 0.9",
            "top_10_overlap 0.",
            "over 122 texts",
            "required is 1",
            "Remove --quantize",
        ],
    );
    // The privilege check is a POST; requests with changes are PUT or DELETE.
    let asks = |method: &str| ["GET", "POST"].contains(&method);
    assert!(standin.requests().iter().all(|request| asks(&request.method)));
    assert!(standin.model_ids().is_empty() && output.stdout.is_empty());
    let output = quantize("0.5");
    assert!(output.status.success(), "{}", message(&output));

    let folder = tempfile::tempdir().unwrap();
    let output = program()
        .args(["export", "--quantize", "--quantize-min-agreement", "1", "--es-model-id", "m"])
        .args(["--task-type", "text_embedding", "--hub-model-id"])
        .arg(&model)
        .arg("--output")
        .arg(folder.path().join("out"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", message(&output));
    assert!(!folder.path().join("out").exists());
}

#[test]
fn few_texts_are_refused_as_proof_of_agreement_and_reported_otherwise() {
    let standin = StandIn::start(StandInOptions::default());
    let model = Fixture::named("bert/st-mean").model();
    let folder = tempfile::tempdir().unwrap();
    let texts = folder.path().join("texts.txt");
    fs::write(&texts, "the sun\nthe river\n").unwrap();
    let texts = format!("--calibration-texts={}", texts.display());
    let more = ["--quantize", "--quantize-min-agreement=0.5", &texts];
    let output = import(&standin, &model, Task::TextEmbedding, &more);
    assert_eq!(output.status.code(), Some(3), "{}", message(&output));
    says(&message(&output), &["2 texts are too few", "at least 3", "--calibration-texts"]);
    let output = import(&standin, &model, Task::TextEmbedding, &["--quantize", &texts]);
    assert!(output.status.success(), "{}", message(&output));
    says(&message(&output), &["the same texts are compared", "figures of 2 texts say little"]);
}

/// A graph that omits the second separator of a pair has no token for a row of one.
#[test]
fn models_of_pairs_without_a_second_separator_are_quantized() {
    let standin = StandIn::start(StandInOptions::default());
    for (fixture, task) in [
        ("modernbert/gte-reranker-modernbert-base", Task::TextSimilarity),
        ("modernbert/question-answering", Task::QuestionAnswering),
        ("deberta/zero-shot", Task::ZeroShotClassification),
    ] {
        let model = Fixture::named(fixture).model();
        for scheme in ["--quantize", "--quantize=eland"] {
            let output = import(&standin, &model, task, &[scheme, "--clear-previous"]);
            assert!(output.status.success(), "{fixture} {scheme}: {}", message(&output));
            let text = message(&output);
            says(&text, &["milliseconds per text", "8 tokens"]);
            assert!(!text.contains("could not be measured"), "{text}");
        }
    }
}

#[test]
fn automatic_quantization_reaches_its_target_with_the_same_result_each_time() {
    let mut layers = Vec::new();
    let mut archives = Vec::new();
    for (scheme, target) in [
        (QuantizeScheme::All, None),
        (QuantizeScheme::Auto, Some(0.1)),
        (QuantizeScheme::Auto, Some(0.9999)),
        (QuantizeScheme::Auto, Some(0.9999)),
    ] {
        let mut quantize = of_scheme(scheme);
        quantize.target_agreement = target;
        let fixture = Fixture::named("bert/st-mean");
        let conversion = convert(&fixture, Task::TextEmbedding, Some(quantize));
        let traced = conversion.trace().unwrap();
        layers.push(traced.quantized.unwrap().layers);
        archives.push(Arc::new(traced.module.archive().unwrap()));
        if let Some(target) = target {
            let saved = conversion.check(&traced, Arc::clone(archives.last().unwrap())).unwrap();
            let first = saved.quantization.unwrap().agreement[0];
            assert!(first.name == "rank_correlation" && first.value >= target, "{first:?}");
        }
    }
    let sha256 = |at: usize| archives[at].sha256(&|_| ());
    assert_eq!((layers[1], sha256(1)), (layers[0], sha256(0)));
    assert!(layers[2] < layers[1], "{layers:?}");
    assert_eq!(sha256(3), sha256(2));

    let standin = StandIn::start(StandInOptions::default());
    let model = Fixture::named("bert/st-mean").model();
    let more = ["--quantize=auto", "--target-agreement=1"];
    let output = import(&standin, &model, Task::TextEmbedding, &more);
    assert_eq!(output.status.code(), Some(3), "{}", message(&output));
    says(
        &message(&output),
        &[
            "cannot be reached",
            "rank_correlation 0.",
            "the target is 1",
            "Lower --target-agreement",
        ],
    );
    let more = ["--quantize", "--target-agreement=1"];
    let output = import(&standin, &model, Task::TextEmbedding, &more);
    assert_eq!(output.status.code(), Some(2), "{}", message(&output));
    says(&message(&output), &["cannot be used with --quantize=all", "--quantize=auto"]);
}

#[test]
fn quantized_table_is_independent_of_the_processor() {
    let standin = StandIn::start(StandInOptions::default());
    let model = Fixture::named("bert/st-mean").model();
    let mut sizes = Vec::new();
    for scheme in ["embeddings", "half-embeddings"] {
        let option = format!("--quantize={scheme}");
        let more = [&option, "--quantize-min-agreement=0.9", "--clear-previous"];
        let output = import(&standin, &model, Task::TextEmbedding, &more);
        assert!(output.status.success(), "{}", message(&output));
        let config = standin.configuration("m").unwrap();
        assert!(config.get("platform_architecture").is_none(), "{config:?}");
        let kept = &config["metadata"]["quantization"];
        assert_eq!((&kept["scheme"], &kept["tables"]), (&json!(scheme), &json!(1)), "{kept}");
        assert_eq!(kept["layers"], 0, "{kept}");
        sizes.push(config["metadata"]["per_deployment_memory_bytes"].as_u64().unwrap());
    }
    assert!(sizes[0] < sizes[1], "{sizes:?}");

    let output = import(&standin, &model, Task::TextEmbedding, &["--quantize=int4"]);
    assert_eq!(output.status.code(), Some(2));
    says(&message(&output), &["unknown scheme", "all, auto, embeddings, half-embeddings, eland"]);
    // The decoder uses the table.
    let tied = Fixture::named("bert/masked-lm").model();
    let more = ["--quantize=half-embeddings", "--clear-previous"];
    let output = import(&standin, &tied, Task::FillMask, &more);
    assert_eq!(output.status.code(), Some(3), "{}", message(&output));
    says(&message(&output), &["half-embeddings", "choose another scheme"]);
}

#[test]
fn old_cluster_gets_no_platform_architecture() {
    let version = "8.10.4".parse().unwrap();
    let standin = StandIn::start(StandInOptions { version, ..StandInOptions::default() });
    let model = Fixture::named("bert/st-mean").model();
    let output = import(&standin, &model, Task::TextEmbedding, &["--quantize", "--start"]);
    assert!(output.status.success(), "{}", message(&output));
    let config = standin.configuration("m").unwrap();
    assert!(config.get("platform_architecture").is_none(), "{config:?}");
    assert!(config["metadata"].get("quantization").is_some());
}

/// Exports a quantized model and returns the files of the folder.
fn exported(model: &Path, folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let output = program()
        .args(["export", "--quantize", "--es-model-id", "m", "--task-type", "text_embedding"])
        .args(["--format", "json", "--hub-model-id"])
        .arg(model)
        .arg("--output")
        .arg(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let metadata: Value =
        serde_json::from_slice(&fs::read(folder.join("m.metadata.json")).unwrap()).unwrap();
    assert_eq!(printed["bundle"], folder.join("m.metadata.json").to_str().unwrap());
    for field in ["sha256", "size", "metadata"] {
        assert_eq!(printed[field], metadata[field], "{field}");
    }
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    files.map(|path| (name(&path), fs::read(&path).unwrap())).collect()
}

#[test]
fn model_converts_to_the_same_bytes_in_another_folder() {
    let folder = tempfile::tempdir().unwrap();
    let model = Fixture::named("bert/st-dense").model();
    let copy = folder.path().join("a copy");
    let copied = std::process::Command::new("cp").arg("-r").args([&model, &copy]).status().unwrap();
    assert!(copied.success());
    let first = exported(&model, &folder.path().join("a"));
    let second = exported(&copy, &folder.path().join("deeper/b"));
    assert_eq!(first.keys().collect::<Vec<_>>(), ["m.metadata.json", "m.pt", "m.vocab.json"]);
    for (name, bytes) in &first {
        assert!(second[name] == *bytes, "{name} differs");
    }
    // A bundle contains its report.
    let standin = StandIn::start(StandInOptions::default());
    let output = program()
        .args(["import", "--url", &standin.url(), "--start", "--bundle"])
        .arg(folder.path().join("a/m.metadata.json"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let config = standin.configuration("m").unwrap();
    assert_eq!(config["metadata"]["quantization"]["texts"], 122, "{config:?}");
    assert!(config["platform_architecture"].as_str().unwrap().starts_with("linux-"));
}

#[test]
fn calibration_texts_are_validated_before_the_import() {
    let standin = StandIn::start(StandInOptions::default());
    let model = Fixture::named("bert/st-mean").model();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("texts");
    let with = |content: &[u8], more: &[&str]| {
        fs::write(&file, content).unwrap();
        let texts = ["--calibration-texts", file.to_str().unwrap()];
        import(&standin, &model, Task::TextEmbedding, &[&texts, more].concat())
    };
    // Empty lines, Windows line ends, a byte order mark, an empty row, a very long row.
    let odd = format!("\u{feff}one text\r\n\r\n  \n\u{1F600}\nanother\n{}", "long ".repeat(5000));
    let output = with(odd.as_bytes(), &["--quantize", "--clear-previous"]);
    assert!(output.status.success(), "{}", message(&output));
    says(&message(&output), &["over 2 texts"]);
    let requests = standin.requests().len();
    for (content, parts) in [
        (&b""[..], ["the file contains no text", "--calibration-texts"]),
        (b"\n \n", ["the file contains no text", "one text per line"]),
        (b"\xff\xfe", ["the file is not UTF-8 text", "convert it"]),
        (&b"x\n".repeat(10_001), ["10001 texts", "use at most 10000"]),
        (&vec![b'x'; (16 << 20) + 1], ["larger than 16777216 bytes", "shorter"]),
    ] {
        let output = with(content, &["--quantize"]);
        assert_eq!(output.status.code(), Some(2), "{}", message(&output));
        says(&message(&output), &parts);
    }
    let output = with(b"text", &[]);
    assert_eq!(output.status.code(), Some(2));
    says(&message(&output), &["--quantize"]);
    fs::remove_file(&file).unwrap();
    let missing = ["--quantize", "--calibration-texts", file.to_str().unwrap()];
    let output = import(&standin, &model, Task::TextEmbedding, &missing);
    assert_eq!(output.status.code(), Some(2));
    says(&message(&output), &["No such file"]);
    for least in ["1.01", "-0.1", "nan", "x"] {
        let least = format!("--quantize-min-agreement={least}");
        let output = import(&standin, &model, Task::TextEmbedding, &["--quantize", &least]);
        assert_eq!(output.status.code(), Some(2));
        says(&message(&output), &["must be a number from 0 to 1"]);
    }
    assert_eq!(standin.requests().len(), requests);
}
