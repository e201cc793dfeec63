//! For every fixture and task with references, our graph on the server's inputs gives the same output as Hugging Face's model on its
//! own inputs.

use std::collections::BTreeMap;

use crate::fixtures::{Case, Fixture};
use crate::graphs::Graphs;
use rust_eland::conversion::{Conversion, Options};
use rust_eland::source::ModelFiles;
use rust_eland::tasks::Task;
use rust_eland::tokenizer::TokenizerKind;
use rust_eland::version::Target;
use tch::{Kind, Tensor};

/// Converts inputs of Hugging Face's tokenizer to the server's inputs (contract, 3.4): the mask contains the padding token's id at
/// padding, token types are 0, positions start at 0.
pub fn as_the_server_sends(case: &Case, kind: TokenizerKind, padding: i64) -> Vec<Tensor> {
    // A model's own tokenizer can pad with another token.
    let ids = &case.input_ids.masked_fill(&case.attention_mask.eq(0), padding);
    let mask = case.attention_mask.masked_fill(&case.attention_mask.eq(0), padding);
    let positions = Tensor::arange(ids.size()[1], (Kind::Int64, ids.device()));
    let mut tensors =
        vec![ids.shallow_clone(), mask, ids.zeros_like(), positions.expand_as(ids).contiguous()];
    tensors.truncate(kind.inputs());
    tensors
}

/// Whether a separator directly follows another in a row.
fn has_two_separators(case: &Case, separator: i64) -> bool {
    // The model's own tokenizer can pad with the separator.
    let is_separator = case.input_ids.eq(separator).logical_and(&case.attention_mask.ne(0));
    let before = is_separator.narrow(1, 0, is_separator.size()[1] - 1);
    bool::try_from((before * is_separator.narrow(1, 1, is_separator.size()[1] - 1)).any()).unwrap()
}

/// Inserts a token before each row, as the server does where the model's tokenizer does not.
fn with_first_token(case: Case, token: i64) -> Case {
    let before = |tensor: &Tensor, value: i64| {
        let column = tensor.narrow(1, 0, 1).full_like(value);
        Tensor::cat(&[&column, tensor], 1)
    };
    Case {
        input_ids: before(&case.input_ids, token),
        attention_mask: before(&case.attention_mask, 1),
        ..case
    }
}

/// Repeats the first separator of each row, as the server does between two texts. Also returns the places of the other tokens in
/// these rows, int64 `[batch, tokens]`.
fn with_second_separator(case: Case, separator: i64) -> (Case, Tensor) {
    let ids = &case.input_ids;
    let ahead = ids.eq(separator).cumsum(1, Kind::Int64).eq(0);
    let first = ahead.sum_dim_intlist([1i64].as_slice(), true, Kind::Int64);
    let places = |count: i64| Tensor::arange(count, (Kind::Int64, ids.device())).unsqueeze(0);
    let after = |places: &Tensor| places.gt_tensor(&first).to_kind(Kind::Int64);
    let (own, server) = (places(ids.size()[1]), places(ids.size()[1] + 1));
    let (kept, sources) = (&own + after(&own), &server - after(&server));
    let repeated = Case {
        input_ids: ids.gather(1, &sources, false),
        attention_mask: case.attention_mask.gather(1, &sources, false),
        ..case
    };
    (repeated, kept)
}

/// Compares the outputs of every fixture of the architectures, and the operations of the graphs with their snapshots.
fn compare(architectures: &[&str]) {
    let mut compared = 0;
    let mut failures = Vec::new();
    let mut graphs: BTreeMap<String, Graphs> = BTreeMap::new();
    for fixture in Fixture::all() {
        let architecture = fixture.name.split('/').next().unwrap();
        if !architectures.contains(&architecture) {
            continue;
        }
        let files = ModelFiles::open(&fixture.model()).unwrap();
        // Attention in plain operations, then fused.
        let targets = [Target::Any, Target::Serverless];
        for (task, target) in
            fixture.tasks().into_iter().flat_map(|task| targets.map(|target| (task, target)))
        {
            let mut options = Options::of_task(task);
            options.target = target;
            let name = format!("{} {task} {target:?}", fixture.name);
            let traced =
                Conversion::read(&files, options, &rust_eland::observer::Progress::quiet())
                    .and_then(|conversion| conversion.trace().map(|traced| (conversion, traced)));
            let (conversion, traced) = match traced {
                Ok(traced) => traced,
                Err(error) => {
                    failures.push(format!("{name}: {error}"));
                    continue;
                }
            };
            graphs.entry(architecture.to_owned()).or_default().add(
                &fixture,
                task,
                traced.operations,
            );
            let tokenizer = conversion.tokenizer();
            let cases = fixture.cases(task);
            let separator = tokenizer.special.separator;
            let repeats = task.pair()
                && tokenizer.kind.separators() == 2
                && !cases.iter().any(|case| has_two_separators(case, separator));
            for mut case in cases {
                let mut kept = None;
                if tokenizer.drops_first() {
                    case = with_first_token(case, tokenizer.first);
                }
                if repeats && case.texts.is_none() {
                    // The server sends no pair without separators.
                    continue;
                } else if repeats {
                    let (repeated, places) = with_second_separator(case, separator);
                    (case, kept) = (repeated, Some(places));
                }
                let inputs = as_the_server_sends(&case, tokenizer.kind, tokenizer.special.padding);
                let mut ours = traced.module.forward(&inputs).unwrap();
                if let Some(kept) = kept.filter(|_| task == Task::QuestionAnswering) {
                    ours = ours.gather(-1, &kept.unsqueeze(0).repeat([2, 1, 1]), false);
                }
                let mut reference = case.output;
                let is_real = case.attention_mask.ne(0);
                let is_other = case.input_ids.ne(tokenizer.special.padding);
                let pads_otherwise = is_real.logical_not().logical_and(&is_other);
                if reference.size().get(..2) == Some(&is_real.size()[..])
                    && pads_otherwise.any().int64_value(&[]) == 1
                {
                    // The states of the padding depend on its token.
                    let is_real = is_real.unsqueeze(-1);
                    (ours, reference) = (ours * &is_real, reference * &is_real);
                }
                let cuts_logits = task == Task::FillMask && ours.size() != reference.size();
                if task == Task::TextExpansion || cuts_logits {
                    // Rows of the embedding table beyond the vocabulary are not tokens, so the server cannot name them.
                    let tokens = tokenizer.vocabulary.vocabulary.len() as i64;
                    let rows = reference.size().last().copied().unwrap();
                    reference = reference.narrow(-1, 0, tokens.min(rows));
                }
                if tokenizer.drops_first() && task == Task::Ner {
                    ours = ours.narrow(1, 1, ours.size()[1] - 1);
                }
                if ours.size() != reference.size() {
                    failures.push(format!(
                        "{name} {}: {:?} for {:?}",
                        case.name,
                        ours.size(),
                        reference.size()
                    ));
                    continue;
                }
                let difference = (&ours - &reference).abs().max().double_value(&[]);
                let allowed = 1e-4 * reference.abs().max().double_value(&[]).max(1.);
                if difference.is_nan() || difference > allowed {
                    failures.push(format!("{name} {}: {difference} > {allowed}", case.name));
                }
                compared += 1;
            }
        }
    }
    failures.extend(graphs.iter().filter_map(|(name, graphs)| graphs.check(name).err()));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(compared > 50, "only {compared} comparisons");
}

#[test]
fn bert_graph_matches_hugging_face() {
    compare(&["bert"]);
}

#[test]
fn roberta_family_graph_matches_hugging_face() {
    compare(&["roberta", "camembert", "xlm-roberta"]);
}

#[test]
fn distilbert_electra_and_mpnet_graphs_match_hugging_face() {
    compare(&["distilbert", "electra", "mpnet"]);
}

#[test]
fn sparse_encoder_graphs_match_sentence_transformers() {
    compare(&["sparse"]);
}

#[test]
fn bart_dpr_and_retribert_graphs_match_hugging_face() {
    compare(&["bart", "dpr", "retribert"]);
}

#[test]
fn mobilebert_and_squeezebert_graphs_match_hugging_face() {
    compare(&["mobilebert", "squeezebert"]);
}

#[test]
fn deberta_v1_and_ernie_graphs_match_hugging_face() {
    compare(&["deberta", "ernie"]);
}

#[test]
fn longformer_t5_and_albert_graphs_match_hugging_face() {
    compare(&["albert", "longformer", "t5"]);
}

#[test]
fn deberta_v2_and_v3_graphs_match_hugging_face() {
    compare(&["deberta-v2"]);
}

#[test]
fn modernbert_graph_matches_hugging_face() {
    compare(&["modernbert"]);
}

#[test]
fn gemma_3_graph_matches_hugging_face() {
    compare(&["gemma3"]);
}

#[test]
fn graphs_with_windows_in_blocks_match_hugging_face() {
    compare(&["windows"]);
}

#[test]
fn gte_nomic_and_jina_graphs_match_references() {
    compare(&["gte", "jina", "nomic"]);
}

#[test]
fn eurobert_and_jina_3_graphs_match_references() {
    compare(&["eurobert", "jina3"]);
}

#[test]
fn static_embedding_graphs_match_their_libraries() {
    compare(&["static"]);
}
