//! `--scripts` and `--languages`: models without the tokens of other scripts.
//!
//! The fixtures read English. Here their vocabularies also get pieces in other scripts, with rows in the word embeddings. Without these
//! pieces, a model must return the answers of the fixture's reference.

use std::fs;
use std::path::{Path, PathBuf};

use rust_eland::config::ModelConfig;
use rust_eland::conversion::{Conversion, ConversionError, Options, ServerRows};
use rust_eland::observer::Progress;
use rust_eland::scripts::Scripts;
use rust_eland::source::ModelFiles;
use rust_eland::tasks::Task;
use rust_eland::tokenizer::{KeptTokens, Tokenizer};
use serde_json::{Value, json};
use standin::{Options as StandInOptions, StandIn};
use tch::{Kind, Tensor};

use crate::fixtures::{Fixture, copy};
use crate::numbers::as_the_server_sends;
use crate::program::{ask, message, program, says};
use crate::terminal::Terminal;

/// The built-in texts in many languages.
const PROSE: &str = include_str!("../../src/conversion/prose.txt");

/// The place of the new pieces in a vocabulary. Later ids change.
const PLACE: usize = 10;

/// Texts with characters that tokenizers replace, and with unknown ones.
const TEXTS: [&str; 12] = [
    "5 µm ½ ﬁne ＡＢＣ ①②③ e\u{301}a\u{308} ℵ ㈱ ㍿ 𝛂𝛃 ™",
    "emoji 😀 👍🏽, „quotes“ – dashes… and\u{A0}blanks\u{3000}here",
    "ÅÉÎ ßſ ŁŃ ǅ ŉ Ｘ",
    "ⅷ № ℡ ʰ ª º",
    "The <mask> of the old town",
    "The [MASK] of the old town",
    "Ωμέγα άλφα ΐ ᾳ 3,14 km²",
    "Ёлка и ёж: 12 % (beta)",
    "データベース ｶﾅ ｶﾞ 東京、㍍ 2024年",
    "שלום עולם ﬡ مرحبا ﷺ",
    "한국어 텍스트 각 漢字",
    "नमस्ते क्षेत्र",
];

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace().filter(|word| !word.is_ascii())
}

/// Pieces of the built-in texts that are not in English, with scores that make them likely. One has the lowest score of the vocabulary.
fn pieces() -> Vec<(String, f64)> {
    let lines = PROSE.lines().filter(|line| !line.starts_with("== "));
    let mut pieces = vec!["μ".to_owned(), "α".to_owned(), "株".to_owned(), "aж".to_owned()];
    for word in lines.chain(TEXTS).flat_map(words) {
        let of = |count: usize| word.chars().take(count).collect::<String>();
        pieces.extend([1, 2, 4].map(|count| format!("▁{}", of(count))));
        pieces.extend(word.chars().map(String::from));
        pieces.push(word.chars().skip(2).collect());
    }
    pieces.retain(|piece| piece.chars().any(|c| !c.is_ascii() && c != '▁'));
    pieces.sort_unstable();
    pieces.dedup();
    let score = |at: usize| -2. - (at % 17) as f64 / 3.;
    let mut scored: Vec<_> =
        pieces.into_iter().enumerate().map(|(at, piece)| (piece, score(at))).collect();
    scored.push(("жжжж".to_owned(), -40.));
    scored
}

/// A copy of a fixture's model whose Unigram vocabulary also has [`pieces`].
struct Extended {
    _folder: tempfile::TempDir,
    model: PathBuf,
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let Ok(text) = fs::read(path) else { return };
    let mut json: Value = serde_json::from_slice(&text).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

impl Extended {
    fn of(fixture: &str) -> Self {
        Self::with(fixture, pieces())
    }

    fn with(fixture: &str, mut pieces: Vec<(String, f64)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("m");
        copy(&Fixture::named(fixture).model(), &model);
        for name in ["sentencepiece.bpe.model", "spm.model"] {
            let _ = fs::remove_file(model.join(name));
        }
        let mut added = 0;
        edit(&model.join("tokenizer.json"), |json| {
            let vocabulary = json["model"]["vocab"].as_array_mut().unwrap();
            pieces.retain(|(piece, _)| vocabulary.iter().all(|entry| entry[0] != piece.as_str()));
            added = pieces.len();
            let entries = pieces.into_iter().map(|(piece, score)| json!([piece, score]));
            vocabulary.splice(PLACE..PLACE, entries);
            for token in json["added_tokens"].as_array_mut().unwrap() {
                token["id"] = moved(token["id"].as_u64().unwrap(), added).into();
            }
        });
        edit(&model.join("tokenizer_config.json"), |json| {
            if let Some(tokens) = json["added_tokens_decoder"].as_object_mut() {
                let all = std::mem::take(tokens);
                let renamed = all
                    .into_iter()
                    .map(|(id, token)| (moved(id.parse().unwrap(), added).to_string(), token));
                tokens.extend(renamed);
            }
        });
        edit(&model.join("added_tokens.json"), |json| {
            for id in json.as_object_mut().unwrap().values_mut() {
                *id = moved(id.as_u64().unwrap(), added).into();
            }
        });
        edit(&model.join("config.json"), |json| {
            if let Some(size) = json["vocab_size"].as_u64() {
                json["vocab_size"] = (size + added as u64).into();
            }
        });
        let path = model.join("model.safetensors");
        let mut tensors = Tensor::read_safetensors(&path).unwrap();
        for (name, tensor) in &mut tensors {
            if name.contains("word_embeddings") || name == "embeddings" {
                let size = tensor.size();
                if let [_, width] = size[..]
                    && size[0] > 150
                {
                    let rows = Tensor::arange(added as i64 * width, (Kind::Float, tensor.device()));
                    let rows = (rows * 0.7).sin().view([-1, width]).to_kind(tensor.kind());
                    let (place, rest) = (PLACE as i64, size[0] - PLACE as i64);
                    let parts = [tensor.narrow(0, 0, place), rows, tensor.narrow(0, place, rest)];
                    *tensor = Tensor::cat(&parts, 0);
                }
            }
        }
        Tensor::write_safetensors(&tensors, path).unwrap();
        Self { _folder: folder, model }
    }

    fn read(&self, task: Task, scripts: Option<&str>) -> Result<Conversion, ConversionError> {
        read(&self.model, task, scripts)
    }
}

/// The id of a token after `added` pieces were inserted.
fn moved(id: u64, added: usize) -> u64 {
    if id < PLACE as u64 { id } else { id + added as u64 }
}

fn read(model: &Path, task: Task, scripts: Option<&str>) -> Result<Conversion, ConversionError> {
    let mut options = Options::of_task(task);
    options.scripts = scripts.map(|names| names.parse().unwrap());
    Conversion::read(&ModelFiles::open(model).unwrap(), options, &Progress::quiet())
}

fn kept(conversion: &Conversion) -> &KeptTokens {
    conversion.tokenizer().kept.as_ref().unwrap()
}

/// Ids of the whole vocabulary for those of the kept one.
fn whole_ids(kept: &KeptTokens, ids: &[i64]) -> Vec<i64> {
    let count = kept.ids().len() as i64;
    let id = |&id: &i64| match kept.ids().get(usize::try_from(id).unwrap()) {
        Some(whole) => *whole,
        // Appended to those of the model.
        None => id - count + kept.of as i64,
    };
    ids.iter().map(id).collect()
}

/// Compares the tokens of the whole vocabulary with those of the kept one, on all texts of some scripts. Returns the number of texts.
fn compare_tokens(whole: &Tokenizer, scripts: &str) -> usize {
    let scripts: Scripts = scripts.parse().unwrap();
    let mut pruned = whole.clone();
    pruned.keep_scripts(&scripts, 3).unwrap();
    let kept = pruned.kept.as_ref().unwrap();
    assert!(kept.leaves_out_any() && kept.ids().len() > 50, "{scripts}");
    let server = |tokenizer| ServerRows::new(tokenizer, 512).unwrap();
    let (server, server_of_kept) = (server(whole), server(&pruned));
    let texts = PROSE.lines().chain(TEXTS).filter(|text| scripts.contain(text));
    let mut compared = 0;
    for text in texts {
        let ids = server.single(text).unwrap().ids;
        let of_kept = server_of_kept.single(text).unwrap().ids;
        assert_eq!(whole_ids(kept, &of_kept), ids, "{scripts} {text}");
        compared += 1;
    }
    compared
}

fn tokenizer(model: &Path) -> Tokenizer {
    let files = ModelFiles::open(model).unwrap();
    Tokenizer::read(&files, &ModelConfig::read(&files).unwrap()).unwrap()
}

#[test]
fn texts_of_kept_scripts_get_the_tokens_of_the_whole_vocabulary() {
    let lists =
        ["latin", "cyrillic", "greek,latin", "jpan", "arabic,hebrew", "hangul,han", "devanagari"];
    let mut compared = 0;
    for fixture in ["xlm-roberta/base", "deberta-v2/base"] {
        let model = Extended::of(fixture);
        let mut whole = tokenizer(&model.model);
        whole.append_tokens();
        compared += lists.map(|scripts| compare_tokens(&whole, scripts)).iter().sum::<usize>();
    }
    // Byte-level BPE with pieces of several scripts.
    let mut whole = tokenizer(&Fixture::named("gemma3/base").model());
    whole.append_tokens();
    compared += lists.map(|scripts| compare_tokens(&whole, scripts)).iter().sum::<usize>();
    assert!(compared > 1000, "only {compared} texts");
}

/// WordPiece decomposes and lower-cases texts, and marks pieces within a word.
#[test]
fn wordpieces_of_kept_scripts_get_the_tokens_of_the_whole_vocabulary() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("m");
    copy(&Fixture::named("bert/base").model(), &model);
    let _ = fs::remove_file(model.join("tokenizer.json"));
    let mut vocabulary = fs::read_to_string(model.join("vocab.txt")).unwrap();
    let mut new: Vec<String> = pieces().into_iter().map(|(piece, _)| piece).collect();
    new = new.iter().map(|piece| piece.replace('▁', "").to_lowercase()).collect();
    new.extend(new.clone().into_iter().map(|piece| format!("##{piece}")));
    new.sort_unstable();
    new.dedup();
    let is_new = |piece: &&String| !vocabulary.lines().any(|line| line == piece.as_str());
    let new: Vec<String> = new.iter().filter(is_new).cloned().collect();
    vocabulary.insert_str(0, &format!("{}\n", new.join("\n")));
    fs::write(model.join("vocab.txt"), vocabulary).unwrap();
    let whole = tokenizer(&model);
    let lists = ["latin", "cyrillic", "greek", "jpan", "arabic,hebrew", "devanagari"];
    let compared: usize = lists.map(|scripts| compare_tokens(&whole, scripts)).iter().sum();
    assert!(compared > 200, "only {compared} texts");
}

/// The references are answers of Hugging Face's model before the pieces were added.
#[test]
fn kept_model_returns_the_answers_of_the_reference() {
    let latin: Scripts = "latin".parse().unwrap();
    let mut compared = 0;
    for (fixture, task) in [
        ("xlm-roberta/base", Task::TextEmbedding),
        ("xlm-roberta/ner", Task::Ner),
        ("xlm-roberta/cross-encoder", Task::TextSimilarity),
        ("bert/multilingual-e5", Task::TextEmbedding),
        ("deberta-v2/text-classification", Task::TextClassification),
        ("jina3/base", Task::TextEmbedding),
        ("gte/gte-multilingual-base", Task::TextEmbedding),
        ("static/potion-multilingual-128M", Task::TextEmbedding),
    ] {
        let original = read(&Fixture::named(fixture).model(), task, None).unwrap();
        // Pieces in Latin would change the tokens of the reference.
        let mut others = pieces();
        others.retain(|(piece, _)| !latin.contain(piece));
        let extended = Extended::with(fixture, others);
        let whole = extended.read(task, None).unwrap();
        let conversion = extended.read(task, Some("latin")).unwrap();
        let (left, all) = (conversion.parameter_bytes(), whole.parameter_bytes());
        assert!(left + 32 * 4 * 500 < all, "{fixture}: {left} of {all}");
        let module = conversion.trace().unwrap().module;
        let tokenizer = conversion.tokenizer();
        let (old, new) = (&original.tokenizer().vocabulary, &tokenizer.vocabulary);
        let renumbered: Vec<i64> =
            old.vocabulary.iter().map(|token| new.id(token).unwrap() as i64).collect();
        let renumbered = Tensor::from_slice(&renumbered);
        let longest = conversion.max_sequence_length();
        let server = ServerRows::new(tokenizer, longest).unwrap();
        for mut case in Fixture::named(fixture).cases(task) {
            let ids = case.input_ids.view([-1]);
            case.input_ids = renumbered.index_select(0, &ids).view(&case.input_ids.size()[..]);
            if let (Some([text]), "short" | "odd") =
                (case.texts.as_ref().and_then(|it| it[0].first_chunk::<1>()), &*case.name)
                && task != Task::TextSimilarity
            {
                // The server computes the same ids from the text.
                let ids = Vec::<i64>::try_from(case.input_ids.view([-1])).unwrap();
                assert_eq!(server.single(text).unwrap().ids, ids, "{fixture} {text}");
            }
            if task == Task::TextSimilarity && case.texts.is_none() {
                continue;
            }
            let inputs = as_the_server_sends(&case, tokenizer.kind, tokenizer.special.padding);
            let found = module.forward(&inputs).unwrap();
            let rows = |tensor: &Tensor| {
                // Outputs at padding have no meaning.
                let mask = case.attention_mask.to_kind(Kind::Float);
                if task == Task::Ner { tensor * mask.unsqueeze(-1) } else { tensor.shallow_clone() }
            };
            let expected = rows(&case.output);
            let difference = (rows(&found) - &expected).abs().max().double_value(&[]);
            let allowed = 1e-4 * expected.abs().max().double_value(&[]).max(1.);
            assert!(difference <= allowed, "{fixture} {}: {difference}", case.name);
            compared += 1;
        }
    }
    assert!(compared > 20, "only {compared} comparisons");
}

#[test]
fn other_texts_are_named_in_a_warning() {
    let extended = Extended::of("xlm-roberta/base");
    let conversion = extended.read(Task::TextEmbedding, Some("latin")).unwrap();
    let (of, number) = (kept(&conversion).of, kept(&conversion).ids().len());
    let notes = conversion.notes().join("\n");
    let kept = format!("{number} of {of} tokens are kept, for texts in Latin");
    says(&notes, &[&kept, "other scripts become <unk>"]);
    let whole = conversion.tokenizer().clone();
    let of_fixture = read(&Fixture::named("bert/base").model(), Task::TextEmbedding, Some("latin"));
    says(
        &of_fixture.unwrap().notes().join("\n"),
        &["tokens are kept, because texts of the scripts Latin"],
    );
    assert!(whole.vocabulary.vocabulary.len() < of);
}

#[test]
fn models_with_an_output_for_each_token_are_refused() {
    for (fixture, task, reason) in [
        ("xlm-roberta/masked-lm", Task::FillMask, "fill_mask returns a number for each token"),
        ("xlm-roberta/masked-lm", Task::TextExpansion, "text_expansion returns a number"),
        ("bert/japanese", Task::TextEmbedding, "its vocabulary is Japanese only"),
    ] {
        let error = read(&Fixture::named(fixture).model(), task, Some("latin")).err().unwrap();
        says(&error.to_string(), &["other scripts cannot be left out", reason]);
        says(&error.hint().unwrap().to_string(), &["Remove `scripts`"]);
    }
}

fn run(arguments: &[&str]) -> String {
    let output = program().args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", message(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn unknown_languages_and_scripts_are_rejected_with_a_list() {
    for (option, value, known) in
        [("--languages", "en,xx", "de, "), ("--scripts", "latin,english", "Cyrillic, ")]
    {
        let output = program().args(["inspect", "--hub-model-id", "m", option, value]).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(2));
        says(&message(&output), &[value.split(',').nth(1).unwrap(), known]);
    }
}

#[test]
fn kept_model_is_inspected_imported_by_a_file_and_verified() {
    let standin = StandIn::start(StandInOptions::default());
    let extended = Extended::of("xlm-roberta/base");
    let model = extended.model.display().to_string();
    let task = ["--task-type", "text_embedding", "--hub-model-id", &model];
    let inspect = [&["inspect", "--languages", "en,de", "--output", "json"], &task[..]].concat();
    let plan: Value = serde_json::from_str(&run(&inspect)).unwrap();
    assert_eq!(plan["scripts"]["names"], json!(["Latin"]));
    let (kept, of) = (plan["scripts"]["kept"].as_u64(), plan["scripts"]["of"].as_u64());
    let (kept, of) = (kept.unwrap(), of.unwrap());
    assert_eq!(plan["scripts"]["left_out_bytes"], (of - kept) * 32 * 4);
    assert!(plan["next"].as_str().unwrap().contains("--scripts Latin"));
    says(
        &run(&[&["inspect", "--scripts", "latin"], &task[..]].concat()),
        &["less memory on a node", "not compared", "Arabic, Bengali, Cyrillic"],
    );

    let texts = extended.model.with_file_name("texts.txt");
    fs::write(&texts, "The river runs by the town.\nМосква\n").unwrap();
    let texts = texts.display().to_string();
    let shown = run(&[&["inspect", "--scripts", "latin", "--texts", &texts], &task[..]].concat());
    says(&shown, &["1 of 2 texts", "line 2: characters of scripts whose tokens are left out"]);

    let file = extended.model.with_file_name("models.yml");
    let text = format!(
        "defaults: {{hub-model-id: {model}, task-type: text_embedding, start: true}}\n\
         models:\n  - es-model-id: small\n    languages: [en, de]\n  - es-model-id: named\n    scripts: latin\n"
    );
    fs::write(&file, text).unwrap();
    run(&["apply", &file.display().to_string(), "--url", &standin.url()]);
    for id in ["small", "named"] {
        assert_eq!(standin.configuration(id).unwrap()["metadata"]["scripts"], json!(["Latin"]));
    }
    let case = Fixture::named("xlm-roberta/base").cases(Task::TextEmbedding).remove(0);
    let text = &case.texts.as_ref().unwrap()[0][0];
    let body = json!({"docs": [{"text_field": text}]});
    let (status, answer) = ask(&standin, "POST", "/_ml/trained_models/small/_infer", Some(&body));
    assert_eq!(status, 200, "{answer}");
    let served = answer["inference_results"][0]["predicted_value"].clone();
    let served: Vec<f64> = serde_json::from_value(served).unwrap();
    let expected = Vec::<f64>::try_from(case.output.get(0).to_kind(Kind::Double)).unwrap();
    assert!(served.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "{served:?}");
    let verify =
        ["verify", "--url", &standin.url(), "--es-model-id", "small", "--hub-model-id", &model];
    says(&run(&verify), &["texts within"]);

    // Texts of other scripts are named as the cause.
    let others = [&verify[..], &["--texts", &texts, "--output", "json"]].concat();
    let output = program().args(others).output().unwrap();
    assert_eq!(output.status.code(), Some(9), "{}", message(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["equal"], &report["different"][0]["cause"]),
        (&json!(1), &json!("scripts"))
    );
    says(
        report["findings"][0].as_str().unwrap(),
        &["scripts: both sides have only the tokens of Latin", "1 of the texts"],
    );
}

#[test]
fn kept_model_is_tokenized_and_run_locally() {
    let extended = Extended::of("xlm-roberta/base");
    let model = extended.model.display().to_string();
    let case = Fixture::named("xlm-roberta/base").cases(Task::TextEmbedding).remove(0);
    let text = case.texts.as_ref().unwrap()[0][0].as_str();
    let infer =
        ["infer", "--hub-model-id", &model, "--task-type", "text_embedding", text, "Москва"];
    let output = program().args(infer).args(["--languages", "en"]).output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    says(
        &message(&output),
        &["does not understand 1 of 2 texts", "other scripts than Latin", "the first is text 2"],
    );
    let lines = String::from_utf8(output.stdout).unwrap();
    let result: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let found: Vec<f64> = serde_json::from_value(result["predicted_value"].clone()).unwrap();
    let expected = Vec::<f64>::try_from(case.output.get(0).to_kind(Kind::Double)).unwrap();
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?}");

    let tokenize = ["tokenize", "--hub-model-id", &model, text, "Москва", "--output", "json"];
    let rows = |more: &[&str]| -> Vec<Value> {
        let lines = run(&[&tokenize[..], more].concat());
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (whole, found) = (rows(&[]), rows(&["--scripts", "latin"]));
    let conversion = extended.read(Task::TextEmbedding, Some("latin")).unwrap();
    let ids = |row: &Value| serde_json::from_value::<Vec<i64>>(row["server"].clone()).unwrap();
    assert_ne!(ids(&found[0]), ids(&whole[0]));
    assert_eq!(whole_ids(kept(&conversion), &ids(&found[0])), ids(&whole[0]));
    assert_eq!(found[0]["server"], found[0]["model"]);
    let left_out =
        |rows: &[Value]| rows.iter().map(|row| row["left_out"].clone()).collect::<Vec<_>>();
    assert_eq!(left_out(&found), [Value::Null, json!(true)]);
    assert_eq!(left_out(&whole), [Value::Null, Value::Null]);
    for (command, other) in [("infer", "--bundle"), ("tokenize", "--bundle")] {
        let output = program().args([command, other, "m", "--scripts", "latin"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", message(&output));
        says(&message(&output), &["cannot be used with", "--scripts"]);
    }
}

/// A model with 100,000 pieces in two scripts.
fn large() -> Extended {
    let letter =
        |first: char, digit: usize| char::from_u32(u32::from(first) + digit as u32).unwrap();
    let piece = |first: char, number: usize| {
        let digits = [10_000, 1000, 100, 10, 1].map(|place| number / place % 10);
        digits.map(|digit| letter(first, digit)).iter().collect::<String>()
    };
    let numbers = (0..50_000).flat_map(|number| [piece('à', number), piece('а', number)]);
    Extended::with("xlm-roberta/base", numbers.map(|piece| (piece, -9.)).collect())
}

#[test]
fn fewer_scripts_are_suggested_for_large_vocabularies() {
    let extended = large();
    let model = extended.model.display().to_string();
    let plan = |more: &[&str]| -> Value {
        let inspect = ["inspect", "--task-type", "text_embedding", "--hub-model-id", &model];
        serde_json::from_str(&run(&[&inspect[..], &["--output", "json"], more].concat())).unwrap()
    };
    let suggested = plan(&[])["suggested_scripts"].take();
    assert_eq!(suggested["names"], json!(["Latin"]));
    let chosen = plan(&["--scripts", "latin"]);
    assert_eq!(chosen["scripts"], suggested);
    assert_eq!(chosen.get("suggested_scripts"), None);

    // The log of an export, and the questions of a guided import.
    let folder = extended.model.with_file_name("bundle").display().to_string();
    let export = ["export", "--hub-model-id", &model, "--task-type", "text_embedding", "--output"];
    let output = program().args(export).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    says(&message(&output), &["--scripts latin would save about 12 MB", "--quantize=embeddings"]);

    let standin = StandIn::start(StandInOptions::default());
    let mut terminal = Terminal::start(&["import"], &[]);
    terminal.connect(&standin.url());
    terminal.wait_for("Model: its hub id, a folder");
    terminal.type_line(&model);
    terminal.wait_for("Task");
    terminal.wait_for("text_embedding (");
    terminal.type_text("\u{1b}[B\r");
    says(&terminal.wait_for("empty: all tokens)"), &["Latin alone: 12"]);
    terminal.type_line("english");
    terminal.wait_for("is not known");
    terminal.wait_for("empty: all tokens)");
    terminal.type_line("en,de");
    terminal.wait_for("Id of the model in Elasticsearch");
    terminal.type_line("mine");
    terminal.wait_for("8-bit integers");
    terminal.type_text("y");
    terminal.wait_for("embeddings: only the word embeddings");
    terminal.type_text("\u{1b}[B\r");
    terminal.wait_for("Start the model after the upload?");
    terminal.type_text("n");
    terminal.wait_for("Address of Kibana");
    terminal.type_line("");
    let plan = terminal.wait_for("Import the model?");
    says(&plan, &["scripts         Latin: ", "--languages en,de", "--quantize=embeddings"]);
    terminal.type_text("n");
    assert_eq!(terminal.end().1, Some(0));
}
