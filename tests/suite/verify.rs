//! The saved archive is compared with the model before the upload.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rust_eland::conversion::{Conversion, ConversionError, Options, Quantize};
use rust_eland::source::ModelFiles;
use rust_eland::tasks::Task;
use standin::{Options as StandInOptions, StandIn};

use crate::fixtures::Fixture;
use crate::program::{message, program, says};

fn convert(model: &Path, task: Task, mut options: Options) -> Conversion {
    let files = ModelFiles::open(model).unwrap();
    options.task = Some(task);
    Conversion::read(&files, options, &rust_eland::observer::Progress::quiet()).unwrap()
}

fn archive(conversion: &Conversion) -> Vec<u8> {
    let mut archive = Vec::new();
    conversion.trace().unwrap().module.save(&mut archive).unwrap();
    archive
}

fn check(conversion: &Conversion, archive: Vec<u8>) -> Result<(), ConversionError> {
    conversion.check(&conversion.trace().unwrap(), Arc::new(archive.into())).map(drop)
}

#[test]
fn archive_of_another_model_is_rejected() {
    let of =
        |fixture: &str, task, options| convert(&Fixture::named(fixture).model(), task, options);
    let mean = of("bert/st-mean", Task::TextEmbedding, Options::default());
    let other = of("bert/st-cls", Task::TextEmbedding, Options::default());
    check(&mean, archive(&mean)).unwrap();
    let error = check(&mean, archive(&other)).unwrap_err();
    assert!(matches!(error, ConversionError::Verification { .. }), "{error}");
    says(&error.to_string(), &["computes other values than the model", "tokens"]);

    // An archive with another shape is rejected.
    let tokens = of("bert/st-mean", Task::PassThrough, Options::default());
    let error = check(&mean, archive(&tokens)).unwrap_err().to_string();
    says(&error, &["an output of the shape"]);

    let mut lenient = Options::default();
    lenient.no_verify = true;
    check(&of("bert/st-mean", Task::TextEmbedding, lenient), archive(&other)).unwrap();

    // A quantized model is compared with the quantized module, not with the float one.
    let mut quantize = Quantize::default();
    quantize.texts = Some(["a".to_owned()].into());
    let mut options = Options::default();
    options.quantize = Some(quantize);
    let quantized = of("bert/st-mean", Task::TextEmbedding, options);
    check(&quantized, archive(&quantized)).unwrap();
    assert!(matches!(check(&quantized, archive(&mean)), Err(ConversionError::Verification { .. })));
}

#[test]
fn single_altered_weight_is_detected() {
    let conversion =
        convert(&Fixture::named("bert/st-mean").model(), Task::TextEmbedding, Options::default());
    let whole = archive(&conversion);
    let weights =
        fs::read(Fixture::named("bert/st-mean").model().join("model.safetensors")).unwrap();
    // Some weights of a layer, which have the same bytes in both files.
    let numbers = &weights[(weights.len() / 2) & !3..][..64];
    let at = whole.windows(numbers.len()).position(|window| window == numbers).unwrap();
    let mut altered = whole.clone();
    altered[at + 3] ^= 0x40; // An exponent's highest bit.
    assert!(check(&conversion, altered).is_err());
    check(&conversion, whole).unwrap();
}

#[test]
fn model_with_nan_output_is_not_uploaded() {
    let standin = StandIn::start(StandInOptions::default());
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .args([&Fixture::named("bert/base").model(), &model])
        .status()
        .unwrap();
    assert!(copied.success());
    let weights = model.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let end = bytes.len();
    bytes[end / 2..].chunks_exact_mut(4).for_each(|number| number.fill(0xff));
    fs::write(&weights, bytes).unwrap();
    let import = |more: &[&str]| {
        program()
            .args(["import", "--url", &standin.url(), "--task-type", "pass_through"])
            .args(["--es-model-id", "m", "--hub-model-id"])
            .arg(&model)
            .args(more)
            .output()
            .unwrap()
    };
    let output = import(&[]);
    assert_eq!(output.status.code(), Some(3), "{}", message(&output));
    says(&message(&output), &["returns NaN", "Download the model again", "--no-verify"]);
    assert!(standin.model_ids().is_empty());
    let output = import(&["--quantize"]);
    assert_eq!(output.status.code(), Some(3), "{}", message(&output));
    says(&message(&output), &["infinite or not a number", "Download the model again"]);
    let output = import(&["--no-verify"]);
    assert!(output.status.success(), "{}", message(&output));
    assert!(!message(&output).contains("computes the same"), "{}", message(&output));
}

#[test]
fn import_reports_the_verification() {
    let folder = tempfile::tempdir().unwrap();
    let export = |more: &[&str]| {
        let output = program()
            .args(["export", "--task-type", "ner", "--es-model-id", "m", "--hub-model-id"])
            .arg(Fixture::named("bert/ner").model())
            .arg("--output")
            .arg(folder.path())
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", message(&output));
        let bytes = fs::read(folder.path().join("m.metadata.json")).unwrap();
        (message(&output), bytes)
    };
    let (said, metadata) = export(&[]);
    says(&said, &["the saved archive computes the same values"]);
    let (said, same) = export(&["--no-verify"]);
    assert!(!said.contains("saved archive"), "{said}");
    assert!(metadata == same);
    let bundle = folder.path().join("m.metadata.json");
    let output = program()
        .args(["import", "--url", "http://127.0.0.1:9", "--no-verify", "--bundle"])
        .arg(bundle)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", message(&output));
}
