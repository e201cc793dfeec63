//! Inference results (contract, 3.3 to 3.5 and 8).

use crate::support::{archive, infer, post, result, start, sums, upload, upload_with};
use rust_eland::torchscript::tch::{Device, Kind, Tensor};
use rust_eland::torchscript::{Dim, Size, TorchError, arange, reshape, view};
use serde_json::{Value, json};
use standin::{Options, StandIn, Version};

/// A stand-in that serves one model with the id `m`.
fn serve(task: &Value, definition: &[u8]) -> StandIn {
    serve_as(Options::default(), task, definition)
}

fn serve_as(options: Options, task: &Value, definition: &[u8]) -> StandIn {
    let standin = StandIn::start(options);
    upload(&standin.url(), "m", task, definition);
    start(&standin.url(), "m");
    standin
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// A module that returns `width` logits per token: 20 in the column of the token's id, otherwise 0.
fn one_hot(inputs: &[Tensor], width: i64) -> Result<Tensor, TorchError> {
    let (batch, tokens) = (Size::of(&inputs[0], 0)?, Size::of(&inputs[0], 1)?);
    let ids = view(&inputs[0], &[Dim::Of(&batch), Dim::Of(&tokens), Dim::Fixed(1)])?;
    let columns = Tensor::arange(width, (Kind::Int64, Device::Cpu));
    Ok(ids.f_eq_tensor(&columns)?.f_to_kind(Kind::Float)?.f_mul_scalar(20.0)?)
}

#[test]
fn graph_receives_four_tensors() {
    let standin = serve(&json!({"pass_through": {}}), &archive(4, sums));
    let url = standin.url();
    // [CLS] these are my words [SEP]: ids, ones, zeros, positions.
    let fed = result(&url, "m", "these are my words", &Value::Null);
    assert_eq!(
        fed,
        json!({"predicted_value": [[2.0 + 5.0 + 6.0 + 7.0 + 8.0 + 3.0, 6.0, 0.0, 15.0]]})
    );
    let renamed = json!({"pass_through": {"results_field": "out"}});
    assert!(result(&url, "m", "words", &renamed)["out"].is_array());
    let several = json!({"docs": [{"text_field": "these"}, {"text_field": "are my"}]});
    let several = post(&url, "/_ml/trained_models/m/_infer", &several).ok();
    let lengths: Vec<_> = several["inference_results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["predicted_value"][0][1].as_f64().unwrap())
        .collect();
    assert_eq!(lengths, [3.0, 4.0]);
}

#[test]
fn embedding_is_the_first_row_of_the_output() {
    let standin = serve(&json!({"text_embedding": {"embedding_size": 4}}), &archive(4, sums));
    let embedding = result(&standin.url(), "m", "unfold", &Value::Null);
    assert_eq!(floats(&embedding["predicted_value"]), [2.0 + 9.0 + 10.0 + 3.0, 4.0, 0.0, 6.0]);
}

#[test]
fn long_text_is_truncated_and_marked() {
    let task = json!({"pass_through": {"tokenization": {"bert":
        {"max_sequence_length": 2, "with_special_tokens": false, "truncate": "none"}}}});
    let standin = serve(&task, &archive(4, sums));
    let url = standin.url();
    infer(&url, "m", "these are my", &Value::Null).refused(
        400,
        "status_exception",
        "Input too large. The tokenized input length [3] exceeds the maximum sequence length [2]",
    );
    let first = json!({"pass_through": {"tokenization": {"bert": {"truncate": "first"}}}});
    let truncated = result(&url, "m", "these are my", &first);
    assert_eq!(truncated["is_truncated"], true);
    assert_eq!(floats(&truncated["predicted_value"][0]), [11.0, 2.0, 0.0, 1.0]);
    assert!(result(&url, "m", "these are", &first).get("is_truncated").is_none());
}

#[test]
fn classification_returns_probabilities() {
    // The logits are the sums of ids, mask, token types and positions.
    let definition = archive(4, |inputs| Ok(sums(inputs)?.f_slice(1, 1, 3, 1)?));
    let task = json!({"text_classification": {"classification_labels": ["long", "short"]}});
    let standin = serve(&task, &definition);
    let url = standin.url();
    // One token and two special tokens: logits 3 and 0.
    let plain = result(&url, "m", "words", &Value::Null);
    assert_eq!(plain["predicted_value"], "long");
    let expected = 3_f64.exp() / (3_f64.exp() + 1.0);
    assert!((plain["prediction_probability"].as_f64().unwrap() - expected).abs() < 1e-12);
    assert!(plain.get("top_classes").is_none());
    let all = json!({"text_classification": {"num_top_classes": -1, "classification_labels": ["l", "s"]}});
    let all = result(&url, "m", "words", &all);
    assert_eq!(all["top_classes"].as_array().unwrap().len(), 2);
    assert_eq!(all["top_classes"][0]["class_name"], "l");

    let wide = serve(&task, &archive(4, sums));
    infer(&wide.url(), "m", "words", &Value::Null).refused(
        500,
        "status_exception",
        "Expected exactly [2] values in text classification result; got [4]",
    );
}

#[test]
fn similarity_is_the_score_of_the_model() {
    let definition = archive(4, |inputs| Ok(sums(inputs)?.f_slice(1, 0, 1, 1)?));
    let task = json!({"text_similarity": {"tokenization": {"bert": {"truncate": "second", "max_sequence_length": 6}}}});
    let standin = serve(&task, &definition);
    let url = standin.url();
    let compare = json!({"text_similarity": {"text": "these are"}});
    // [CLS] these are [SEP] my [SEP]
    let score = result(&url, "m", "my words", &compare);
    assert_eq!(
        score,
        json!({"predicted_value": 2.0 + 5.0 + 6.0 + 3.0 + 7.0 + 3.0, "is_truncated": true})
    );
    infer(&url, "m", "my words", &Value::Null).refused(
        400,
        "status_exception",
        "please provide configuration update for text_similarity task including the desired [text]",
    );
    let wide = serve(&task, &archive(4, sums));
    infer(&wide.url(), "m", "my", &compare).refused(
        500,
        "status_exception",
        "Expected exactly [1] value in text_similarity result; got [4]",
    );
}

#[test]
fn expansion_weights_are_named_by_token() {
    let definition = archive(4, |inputs| {
        let axis: &[i64] = &[1];
        Ok(one_hot(inputs, 16)?.f_sum_dim_intlist(axis, false, Kind::Float)?)
    });
    let standin = serve(&json!({"text_expansion": {}}), &definition);
    let weights = result(&standin.url(), "m", "words words .", &Value::Null);
    assert_eq!(
        weights["predicted_value"],
        json!({"[CLS]": 20.0, "[SEP]": 20.0, "words": 40.0, "__": 20.0})
    );
}

#[test]
fn entities_are_whole_words() {
    // Columns are ids up to 11. Label of id 9: B_PER; id 10: I_PER; id 11: I_LOC.
    let labels: Vec<_> = (0..12)
        .map(|id| match id {
            9 => "B_PER".to_owned(),
            10 => "I_PER".to_owned(),
            11 => "I_LOC".to_owned(),
            0 => "O".to_owned(),
            other => format!("O{other}"),
        })
        .collect();
    let task = json!({"ner": {"classification_labels": labels}});
    let standin = serve(&task, &archive(4, |inputs| one_hot(inputs, 12)));
    // `who` and `is` have ids beyond the labels, so all probabilities are equal and the first label, O, is chosen.
    let found = result(&standin.url(), "m", "who is unfold.", &Value::Null);
    assert_eq!(found["predicted_value"], "who is [unfold](PER&unfold)[.](LOC&.)");
    let entity = &found["entities"][0];
    assert_eq!((&entity["start_pos"], &entity["end_pos"]), (&json!(7), &json!(13)));
    assert_eq!(entity["class_name"], "PER");
}

#[test]
fn mask_is_filled_with_the_best_tokens() {
    // Each token predicts its next position as a token id.
    let definition = archive(4, |inputs| {
        let columns = Tensor::arange(16, (Kind::Int64, Device::Cpu));
        let tokens = Size::of(&inputs[3], 1)?;
        let ids = view(&inputs[3], &[Dim::Fixed(1), Dim::Of(&tokens), Dim::Fixed(1)])?;
        Ok(ids.f_add_scalar(6)?.f_eq_tensor(&columns)?.f_to_kind(Kind::Float)?)
    });
    let standin = serve(&json!({"fill_mask": {"num_top_classes": 2}}), &definition);
    let url = standin.url();
    // [CLS] these [MASK]: position 2 predicts id 8.
    let filled = result(&url, "m", "these [MASK]", &Value::Null);
    assert_eq!(filled["predicted_value"], "words");
    assert_eq!(filled["predicted_sequence"], "these words");
    assert_eq!(filled["top_classes"].as_array().unwrap().len(), 2);
    infer(&url, "m", "these", &Value::Null).refused(
        400,
        "status_exception",
        "no [MASK] token could be found",
    );
}

#[test]
fn answer_is_a_span_of_the_text() {
    // Start logits are high at `my`, end logits at `words`; stacked to [2, 1, tokens].
    let definition = archive(4, |inputs| {
        let at = |id: i64| {
            Ok::<_, TorchError>(inputs[0].f_eq(id)?.f_to_kind(Kind::Float)?.f_mul_scalar(20.0)?)
        };
        Ok(Tensor::f_stack(&[at(7)?, at(8)?], 0)?)
    });
    let task = json!({"question_answering": {"max_answer_length": 4, "tokenization": {"bert":
        {"truncate": "none", "span": 2, "max_sequence_length": 10}}}});
    let standin = serve(&task, &definition);
    let url = standin.url();
    let ask = json!({"question_answering": {"question": "who", "num_top_classes": 1}});
    let answer = result(&url, "m", "these are my words .", &ask);
    assert_eq!(answer["predicted_value"], "my words");
    assert_eq!((&answer["start_offset"], &answer["end_offset"]), (&json!(10), &json!(18)));
    assert!(answer["prediction_probability"].as_f64().unwrap() > 0.9);
    assert_eq!(answer["top_classes"][0]["answer"], "my words");
    // Several windows: the answer is in the last one, which is padded.
    let long = format!("{}my words .", "these are ".repeat(6));
    let answer = result(&url, "m", &long, &ask);
    assert_eq!(answer["predicted_value"], "my words");
    assert_eq!(answer["start_offset"], 60);
    infer(&url, "m", "these", &Value::Null).refused(400, "status_exception", "[question]");
}

#[test]
fn zero_shot_labels_are_evaluated_one_by_one() {
    // Entailment increases with the sum of ids, so the label with the highest id is chosen.
    let definition = archive(4, |inputs| {
        let ids = sums(inputs)?.f_slice(1, 0, 1, 1)?.f_mul_scalar(0.1)?;
        let zero = ids.f_mul_scalar(0.0)?;
        Ok(Tensor::f_cat(&[&zero, &zero, &ids], 1)?)
    });
    let task = json!({"zero_shot_classification": {
        "classification_labels": ["contradiction", "neutral", "entailment"],
        "hypothesis_template": "this is {}."}});
    let standin = serve(&task, &definition);
    let url = standin.url();
    let labels = json!({"zero_shot_classification": {"labels": ["these", "words"]}});
    let single = result(&url, "m", "my words", &labels);
    assert_eq!(single["predicted_value"], "words");
    let probability = single["prediction_probability"].as_f64().unwrap();
    let expected = 0.8_f64.exp() / (0.8_f64.exp() + 0.5_f64.exp());
    assert!((probability - expected).abs() < 1e-6, "{probability} {expected}");
    assert_eq!(single["top_classes"].as_array().unwrap().len(), 2);
    let many = json!({"zero_shot_classification": {"labels": ["these"], "multi_label": true}});
    // [CLS] my words [SEP] this is these . [SEP]
    let entailment = 0.1 * f64::from(2 + 7 + 8 + 3 + 14 + 13 + 5 + 11 + 3);
    let expected = entailment.exp() / (entailment.exp() + 1.0);
    let probability =
        result(&url, "m", "my words", &many)["prediction_probability"].as_f64().unwrap();
    assert!((probability - expected).abs() < 1e-6, "{probability} {expected}");
    infer(&url, "m", "my words", &Value::Null).refused(
        400,
        "status_exception",
        "zero_shot_classification requires non-empty [labels]",
    );
}

/// A module that multiplies each row's value by the batch size.
fn batch_size(inputs: &[Tensor]) -> Result<Tensor, TorchError> {
    let batch = Size::of(&inputs[0], 0)?;
    let rows = arange(&batch)?.f_mul_scalar(0)?.f_add_scalar(1)?.f_to_kind(Kind::Float)?;
    let count = rows.f_sum(Kind::Float)?;
    let ones = reshape(&rows, &[Dim::Of(&batch), Dim::Fixed(1)])?;
    let counts = ones.f_mul(&count)?;
    Ok(Tensor::f_cat(&[&counts, &counts, &counts], 1)?)
}

#[test]
fn rows_are_evaluated_one_by_one_or_as_a_batch() {
    // The three logits of a label are equal to the batch size, which the similarity exposes.
    let task = json!({"pass_through": {"tokenization": {"bert":
        {"truncate": "none", "span": 0, "max_sequence_length": 4}}}});
    let counts = |options: Options| {
        let standin = serve_as(options, &task, &archive(4, batch_size));
        let rows = result(&standin.url(), "m", "these are my words who", &Value::Null);
        rows["predicted_value"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row[0].as_f64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(counts(Options::default()), [1.0, 1.0, 1.0]);
    assert_eq!(counts(Options { batched: true, ..Options::default() }), [3.0, 3.0, 3.0]);
    let old = Options { version: Version::new(8, 8, 2), ..Options::default() };
    assert_eq!(counts(old), [3.0, 3.0, 3.0]);
    let new = Options { version: Version::new(8, 9, 0), ..Options::default() };
    assert_eq!(counts(new), [1.0, 1.0, 1.0]);
}

#[test]
fn other_tokenizers_send_fewer_tensors_and_pad_the_mask_with_their_padding_id() {
    let standin = StandIn::start(Options::default());
    let url = standin.url();
    let windows = json!({"truncate": "none", "span": 0, "max_sequence_length": 4});
    let special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"];
    let and = |more: &[&'static str]| [&special[..], more].concat();
    let roberta = json!({"vocabulary": and(&["Ġa", "b"]), "merges": ["Ġ a"]});
    let scored = json!({"vocabulary": and(&["▁a", "▁b"]),
        "scores": [0.0, 0.0, 0.0, 0.0, 0.0, -1.0, -1.0]});
    let deberta = json!({"vocabulary": ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "▁a", "▁b"],
        "scores": [0.0, 0.0, 0.0, 0.0, 0.0, -1.0, -1.0]});
    let mpnet = json!({"vocabulary": ["<s>", "<pad>", "</s>", "[UNK]", "<mask>", "a", "b"]});
    // Two windows: begin, two tokens, end; begin, one token, end, padding.
    for (tokenizer, inputs, vocabulary, rows) in [
        ("roberta", 2, roberta, json!([[5.0 + 5.0 + 2.0, 4.0], [5.0 + 2.0 + 1.0, 4.0]])),
        ("xlm_roberta", 2, scored, json!([[5.0 + 5.0 + 2.0, 4.0], [5.0 + 2.0 + 1.0, 4.0]])),
        ("mpnet", 2, mpnet, json!([[5.0 + 5.0 + 2.0, 4.0], [5.0 + 2.0 + 1.0, 4.0]])),
        (
            "deberta_v2",
            3,
            deberta,
            json!([[1.0 + 10.0 + 2.0, 4.0, 0.0], [1.0 + 5.0 + 2.0, 3.0, 0.0]]),
        ),
    ] {
        let mut settings = windows.clone();
        if tokenizer == "roberta" {
            settings["add_prefix_space"] = true.into();
        }
        let id = tokenizer.replace('_', "-");
        let task = json!({"pass_through": {"tokenization": {tokenizer: settings}}});
        upload_with(&url, &id, &task, &vocabulary, &archive(inputs, sums));
        start(&url, &id);
        assert_eq!(
            result(&url, &id, "a a a", &Value::Null)["predicted_value"],
            rows,
            "{tokenizer}"
        );
    }
    // These tokenizers put two separators between a pair, DeBERTa one.
    let similarity = json!({"text_similarity": {"tokenization": {"xlm_roberta": {}}}});
    let definition = archive(2, |inputs| Ok(sums(inputs)?.f_slice(1, 1, 2, 1)?));
    let scored = json!({"vocabulary": special, "scores": [0.0, 0.0, 0.0, 0.0, 0.0]});
    upload_with(&url, "pair", &similarity, &scored, &definition);
    start(&url, "pair");
    let compare = json!({"text_similarity": {"text": "<mask>"}});
    assert_eq!(result(&url, "pair", "<mask>", &compare)["predicted_value"], 6.0);
}

#[test]
fn unsuitable_graph_fails_at_inference() {
    let standin = serve(&json!({"pass_through": {}}), &archive(2, sums));
    let url = standin.url();
    infer(&url, "m", "words", &Value::Null).refused(
        500,
        "status_exception",
        "Error in inference process: [",
    );
    let stats = crate::support::get(&url, "/_ml/trained_models/m/_stats").ok();
    assert_eq!(stats["trained_model_stats"][0]["deployment_stats"]["error_count"], 1);

    let integers = archive(4, |inputs| Ok(inputs[0].shallow_clone().f_add_scalar(1)?));
    let standin = serve(&json!({"pass_through": {}}), &integers);
    infer(&standin.url(), "m", "words", &Value::Null).refused(
        500,
        "status_exception",
        "Cannot process result tensor of type [",
    );
    let deep = archive(4, |inputs| Ok(sums(inputs)?.f_unsqueeze(0)?.f_unsqueeze(0)?));
    let standin = serve(&json!({"pass_through": {}}), &deep);
    infer(&standin.url(), "m", "words", &Value::Null).refused(
        500,
        "status_exception",
        "Cannot convert results tensor of size [",
    );
}

#[test]
fn unsuitable_inference_request_is_rejected() {
    let standin = serve(&json!({"pass_through": {}}), &archive(4, sums));
    let url = standin.url();
    let path = "/_ml/trained_models/m/_infer";
    infer(&url, "m", "words", &json!({"ner": {}})).refused(
        400,
        "status_exception",
        "Trained model [m] is configured for task [pass_through] but called with task [ner]",
    );
    post(&url, path, &json!({"docs": [{"text": "words"}]})).refused(
        400,
        "status_exception",
        "Input field [text_field] does not exist in the source document",
    );
    post(&url, path, &Value::Null).refused(400, "x_content_parse_exception", "requires body");
    infer(&url, "absent", "words", &Value::Null).refused(
        404,
        "resource_not_found_exception",
        "Could not find trained model [absent]",
    );
    let none =
        post(&url, &format!("{path}?timeout=0"), &json!({"docs": [{"text_field": "words"}]}));
    assert!(matches!(none.status, 200 | 408), "{}", none.text());
}
