//! Tests of the blocks against their formulas, computed element by element.

use tch::{Device, Kind, Tensor};

use super::*;
use crate::models::activation::Activation;
use crate::models::layers::{Heads, Linear, attention_bias};
use crate::models::{AttentionForm, Inputs, RowForm, Rows, WeightLoader};
use crate::special_tokens::SpecialTokens;
use crate::torchscript::{Module, TorchError, operations};

const FORMS: [AttentionForm; 2] = [AttentionForm::Plain, AttentionForm::Fused];

/// Rows of tokens with the id 5 and padding with the id 0.
fn rows(tokens: i64, lengths: &[i64]) -> [Tensor; 2] {
    let places = Tensor::arange(tokens, (Kind::Int64, Device::Cpu));
    let mask = places.unsqueeze(0).lt_tensor(&Tensor::from_slice(lengths).unsqueeze(1));
    let mask = mask.to_kind(Kind::Int64);
    [&mask * 5, mask]
}

fn inputs_of(tensors: &[Tensor], form: AttentionForm) -> Inputs {
    let special =
        SpecialTokens { padding: 0, separator: 2, appended: None, without_embedding: None };
    Inputs::of_server(tensors, special, &RowForm::Single, form).unwrap()
}

fn inputs(tokens: i64, lengths: &[i64]) -> Inputs {
    inputs_of(&rows(tokens, lengths), AttentionForm::Plain)
}

fn random(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu))
}

fn linear(inputs: i64, outputs: i64) -> Linear {
    Linear::new(random(&[outputs, inputs]) * 0.3, None)
}

fn assert_near(ours: &Tensor, expected: &Tensor) {
    assert_eq!(ours.size(), expected.size());
    let difference = (ours - expected).abs().max().double_value(&[]);
    assert!(difference < 1e-5, "{difference}");
}

/// Cosines and sines of the first element's angle at the last of `tokens`.
fn last_angles(rotary: &Rotary, tokens: i64) -> Vec<f64> {
    let angles = rotary.angles(&inputs(tokens, &[tokens])).unwrap();
    let half = Tensor::ones([1, 1, tokens, 4], (Kind::Float, Device::Cpu));
    let states = Tensor::cat(&[&half, &half.zeros_like()], 3);
    let last = angles.rotate(&states).unwrap().select(2, tokens - 1).view(-1);
    // (1, 0) becomes (cos, sin).
    (0..4).map(|i| last.double_value(&[i + 4]).atan2(last.double_value(&[i]))).collect()
}

fn assert_angles(rotary: &Rotary, tokens: i64, frequency: impl Fn(f64) -> f64) {
    for (i, angle) in (0..4).zip(last_angles(rotary, tokens)) {
        let expected = (tokens - 1) as f64 * frequency(f64::from(i));
        let expected = expected.sin().atan2(expected.cos());
        assert!((angle - expected).abs() < 1e-4, "{i}: {angle} {expected}");
    }
}

#[test]
fn rotary_angles_follow_their_formulas() {
    let loader = WeightLoader::sketch();
    let weights = loader.weights();
    let (base, width, half) = (1000f64, 8., 4f64);
    let plain = |base: f64, i: f64| base.powf(-2. * i / width);
    assert_angles(&Rotary::new(&weights, 8, base), 40, |i| plain(base, i));
    let ntk = Rotary::with_ntk(&weights, 8, base, 2.);
    assert_angles(&ntk, 40, |i| plain(base * 2., i) / 2f64.powf(2. / width));
    let mixed = Rotary::with_mixed_ntk(&weights, 8, base, 3., 0.625);
    let a = 3f64.ln() / half.powf(0.625);
    assert_angles(&mixed, 40, |i| plain(base, i) / (a * (i + 1.).powf(0.625)).exp());
    let dynamic = Rotary::with_dynamic_ntk(&weights, 8, base, 2., 32);
    for tokens in [8, 32, 33, 100] {
        let longer = 2. * tokens as f64 / 32. - 1.;
        let scaled = if tokens > 32 { base * longer.powf(8. / 6.) } else { base };
        assert_angles(&dynamic, tokens, |i| plain(scaled, i));
    }
}

#[test]
fn rotation_of_a_part_keeps_the_rest_of_a_head() {
    let loader = WeightLoader::sketch();
    let angles = Rotary::new(&loader.weights(), 4, 100.).angles(&inputs(5, &[5])).unwrap();
    let states = random(&[2, 3, 5, 6]);
    let rotated = angles.rotate(&states).unwrap();
    assert_eq!(rotated.narrow(3, 4, 2), states.narrow(3, 4, 2));
    assert_near(&rotated.narrow(3, 0, 4), &angles.rotate(&states.narrow(3, 0, 4)).unwrap());
}

#[test]
fn sliding_window_hides_far_tokens_and_padding() {
    let inputs = inputs(6, &[6, 4]);
    let bias = sliding_window_bias(&attention_bias(&inputs.attention_mask).unwrap(), 2, &inputs);
    let bias = bias.unwrap();
    assert_eq!(bias.size(), [2, 1, 6, 6]);
    for (row, length) in [(0, 6), (1, 4)] {
        for (i, j) in (0..6i64).flat_map(|i| (0..6).map(move |j| (i, j))) {
            let visible = (i - j).abs() <= 2 && j < length;
            let expected = if visible { 0. } else { f64::from(f32::MIN) };
            assert_eq!(bias.double_value(&[row, 0, i, j]), expected, "{row} {i} {j}");
        }
    }
}

#[test]
fn windows_are_computed_in_blocks_for_long_inputs_only() {
    for (reach, longest, block) in [
        (64, 2047, None),
        (64, 2048, Some(256)),
        (64, 8192, Some(256)),
        (0, 2048, Some(256)),
        (128, 2048, Some(256)),
        (129, 2048, Some(512)),
        (256, 2048, Some(512)),
        (257, 131_072, None),
    ] {
        assert_eq!(block_length(reach, longest), block, "{reach} {longest}");
        let inputs = inputs(3, &[3]).of_at_most(longest);
        let bias = attention_bias(&inputs.attention_mask).unwrap();
        let scope = AttentionScope::window(&bias, reach, &inputs).unwrap();
        assert_eq!(matches!(scope, AttentionScope::Blocks(_)), block.is_some());
    }
}

/// Attention of 3 heads in a window, in blocks of `block` queries and with a mask. Also returns whether each token sees a token,
/// `[batch, tokens]`.
fn both_windows(inputs: &Inputs, reach: i64, block: i64) -> ([Tensor; 2], Tensor) {
    let heads = Heads { count: 3, size: 4 };
    let [batch, tokens] = inputs.input_ids.size()[..] else { panic!() };
    let states = [(); 3].map(|()| random(&[batch, 3, tokens, 4]));
    let bias = attention_bias(&inputs.attention_mask).unwrap();
    let mask = sliding_window_bias(&bias, reach, inputs).unwrap();
    let sees = mask.eq(0.).any_dim(-1, false).squeeze_dim(1);
    let blocks = WindowBlocks::of(&bias, reach, block, inputs).unwrap();
    let attended = [AttentionScope::Blocks(blocks), AttentionScope::All(mask)]
        .map(|scope| scope.attend(states.each_ref(), heads, Rows::All, inputs).unwrap());
    (attended, sees)
}

#[test]
fn window_in_blocks_attends_as_with_a_mask() {
    const BLOCK: i64 = 8;
    let lengths = [1, 2, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 33, 70];
    for (reach, tokens) in [0, 1, 3, 4].into_iter().flat_map(|it| lengths.map(|n| (it, n))) {
        let rows_of =
            [vec![tokens], vec![tokens, (tokens + 1) / 2, 1], vec![tokens - 1, tokens, tokens / 3]];
        for (form, of) in
            FORMS.into_iter().flat_map(|form| rows_of.iter().map(move |of| (form, of)))
        {
            let inputs = inputs_of(&rows(tokens, of), form);
            let ([blocks, masked], sees) = both_windows(&inputs, reach, BLOCK);
            assert!(bool::try_from(blocks.isfinite().all()).unwrap(), "{of:?}");
            // Padding that sees no token attends to hidden tokens, which are others in blocks. It has no meaning.
            let sees = if tokens < 2 * BLOCK { sees.ones_like() } else { sees };
            let seen =
                |attended: Tensor| attended.masked_fill(&sees.logical_not().unsqueeze(-1), 0.);
            let (blocks, masked) = (seen(blocks), seen(masked));
            assert_eq!(blocks.size(), masked.size());
            let difference = (&blocks - &masked).abs().max().double_value(&[]);
            assert!(difference < 1e-5, "reach {reach}, {of:?} of {tokens}, {form:?}: {difference}");
        }
    }
}

#[test]
fn first_token_alone_attends_as_among_all_tokens() {
    let loader = WeightLoader::sketch();
    let weights = loader.weights();
    let attention = Attention {
        query_key_value: [linear(8, 8), linear(8, 4), linear(8, 4)],
        norm: None,
        heads: Heads::of(8, 2),
        output: linear(8, 8),
    };
    let states = random(&[2, 20, 8]);
    for form in FORMS {
        let inputs = inputs_of(&rows(20, &[20, 9]), form);
        let angles = Rotary::new(&weights, 4, 100.).angles(&inputs).unwrap();
        let bias = attention_bias(&inputs.attention_mask).unwrap();
        for scope in [
            AttentionScope::All(sliding_window_bias(&bias, 3, &inputs).unwrap()),
            AttentionScope::Blocks(WindowBlocks::of(&bias, 3, 8, &inputs).unwrap()),
            AttentionScope::All(Alibi::new(&weights, 2).bias(&bias, &inputs).unwrap()),
            AttentionScope::All(bias),
        ] {
            let of = |rows: Rows| {
                attention.forward_within(&states, &scope, Some(&angles), rows, &inputs).unwrap()
            };
            assert_near(&of(Rows::First), &of(Rows::All).narrow(1, 0, 1));
        }
    }
}

#[test]
fn alibi_bias_grows_with_distance_and_hides_padding() {
    let loader = WeightLoader::sketch();
    let inputs = inputs(3, &[3, 2]);
    let bias = Alibi::new(&loader.weights(), 2)
        .bias(&attention_bias(&inputs.attention_mask).unwrap(), &inputs)
        .unwrap();
    assert_eq!(bias.size(), [2, 2, 3, 3]);
    assert_eq!(bias.double_value(&[0, 0, 0, 2]), -2. / 16.);
    assert_eq!(bias.double_value(&[0, 1, 2, 1]), -1. / 256.);
    assert!(bias.double_value(&[1, 0, 0, 2]) < -1e38);
}

#[test]
fn feed_forward_applies_the_activation_to_one_of_two_layers() {
    let (activated, gate, output) = (linear(4, 3), linear(4, 3), linear(3, 4));
    let states = random(&[2, 5, 4]);
    let inner = activated.forward(&states).unwrap().relu() * gate.forward(&states).unwrap();
    let expected = output.forward(&inner).unwrap();
    let activation = Activation::Relu.into();
    let block = FeedForward { inner: Inner::Gated { activated, gate }, activation, output };
    assert_near(&block.forward(&states).unwrap(), &expected);
}

#[test]
fn rms_norm_scales_to_mean_square_one() {
    let loader = crate::models::tests::checkpoint(&[("weight".to_owned(), vec![4])]);
    let weights = loader.weights();
    let states = random(&[2, 3, 4]);
    let squares = (&states * &states).mean_dim([-1i64].as_slice(), true, None::<Kind>);
    let expected = &states / (squares + 0.25f64).sqrt();
    // The checkpoint holds zeros.
    let around_one = RmsNorm::around_one(&weights, 4, 0.25);
    assert_near(&around_one.forward(&states).unwrap(), &expected);
    let tripled = around_one.times(&weights, 3.).forward(&states).unwrap();
    assert_near(&tripled, &(expected * 3.));
    let plain = RmsNorm::load(&weights, 4, 0.25).forward(&states).unwrap();
    assert_near(&plain, &Tensor::zeros_like(&states));
}

#[test]
fn query_heads_share_key_heads_that_are_normalized_one_by_one() {
    let loader = crate::models::tests::checkpoint(&[("weight".to_owned(), vec![4])]);
    let norm = || RmsNorm::around_one(&loader.weights(), 4, 1e-6);
    let layers = [linear(6, 16), linear(6, 8), linear(6, 8)];
    let (states, output) = (random(&[2, 5, 6]), linear(16, 6));
    // Element by element: head h of the query reads key and value of head h / 2.
    let [query, key, value] = layers.each_ref().map(|layer| layer.forward(&states).unwrap());
    let head = |of: &Tensor, head: i64| of.narrow(2, 4 * head, 4);
    let unit = |of: Tensor| {
        let length = ((&of * &of).mean_dim([-1i64].as_slice(), true, None::<Kind>) + 1e-6).sqrt();
        of / length
    };
    let heads: Vec<Tensor> = (0..4)
        .map(|h| {
            let scores = unit(head(&query, h)).matmul(&unit(head(&key, h / 2)).transpose(1, 2));
            (scores / 2.).softmax(-1, None::<Kind>).matmul(&head(&value, h / 2))
        })
        .collect();
    let expected = output.forward(&Tensor::cat(&heads, 2)).unwrap();
    let attention = Attention {
        query_key_value: layers,
        norm: Some(QueryKeyNorm::EachHead { query: norm(), key: norm() }),
        heads: Heads { count: 4, size: 4 },
        output,
    };
    for form in FORMS {
        let inputs = inputs_of(&rows(5, &[5, 5]), form);
        let bias = attention_bias(&inputs.attention_mask).unwrap();
        assert_near(
            &attention.forward(&states, &bias, None, Rows::All, &inputs).unwrap(),
            &expected,
        );
    }
}

/// A pass with every block, which returns `[batch, tokens, hidden]`.
fn all_blocks() -> impl Fn(&[Tensor], AttentionForm) -> Result<Tensor, TorchError> {
    let loader = WeightLoader::sketch();
    let weights = loader.weights();
    let heads = Heads::of(8, 2);
    let rotary = Rotary::with_dynamic_ntk(&weights, 4, 100., 2., 6);
    let alibi = Alibi::new(&weights, 2);
    let attention = |key_width| Attention {
        query_key_value: [linear(8, 8), linear(8, key_width), linear(8, key_width)],
        norm: None,
        heads,
        output: linear(8, 8),
    };
    let (near_attention, grouped, far_attention) = (attention(8), attention(4), attention(4));
    let feed_forward = FeedForward {
        inner: Inner::Gated { activated: linear(8, 12), gate: linear(8, 12) },
        activation: Activation::Silu.into(),
        output: linear(12, 8),
    };
    let table = random(&[6, 8]);
    move |tensors, form| {
        let inputs = inputs_of(tensors, form);
        let states = crate::models::layers::embedding(&table, &inputs.input_ids)?;
        let bias = attention_bias(&inputs.attention_mask)?;
        let near = sliding_window_bias(&bias, 2, &inputs)?;
        let blocks = AttentionScope::Blocks(WindowBlocks::of(&bias, 2, 4, &inputs)?);
        let angles = rotary.angles(&inputs)?;
        let states = near_attention.forward(&states, &near, Some(&angles), Rows::All, &inputs)?;
        let states = grouped.forward_within(&states, &blocks, Some(&angles), Rows::All, &inputs)?;
        let states = far_attention.forward(
            &states,
            &alibi.bias(&bias, &inputs)?,
            None,
            Rows::All,
            &inputs,
        )?;
        let first =
            grouped.forward_within(&states, &blocks, Some(&angles), Rows::First, &inputs)?;
        feed_forward.forward(&states.f_add(&first)?)
    }
}

#[test]
fn traced_blocks_run_at_other_sizes_with_accepted_operations() {
    for form in FORMS {
        let forward = all_blocks();
        let forward = |tensors: &[Tensor]| forward(tensors, form);
        let module = Module::trace(&rows(5, &[5]), forward).unwrap();
        operations::check(&module.operations().unwrap()).unwrap();
        for (tokens, lengths) in [(1, vec![1]), (5, vec![5]), (9, vec![9, 4, 1]), (40, vec![40])] {
            let rows = rows(tokens, &lengths);
            assert_near(&module.forward(&rows).unwrap(), &forward(&rows).unwrap());
        }
    }
}

#[test]
fn fused_and_plain_attention_agree() {
    let forward = all_blocks();
    let [plain, fused] = FORMS.map(|form| forward(&rows(9, &[9, 4]), form).unwrap());
    assert_near(&plain.get(0), &fused.get(0));
    assert_near(&plain.get(1).narrow(0, 0, 4), &fused.get(1).narrow(0, 0, 4));
}

#[test]
fn rotated_scores_depend_on_the_distance_only() {
    // Two tokens three places apart have the same score at every place.
    let loader = WeightLoader::sketch();
    let angles = Rotary::new(&loader.weights(), 8, 100.).angles(&inputs(12, &[12])).unwrap();
    let (query, key) = (random(&[1, 1, 1, 8]), random(&[1, 1, 1, 8]));
    let place = |states: &Tensor| angles.rotate(&states.expand([1, 1, 12, 8], false)).unwrap();
    let scores = place(&query).matmul(&place(&key).transpose(-1, -2));
    for place in 0..9 {
        let difference =
            scores.double_value(&[0, 0, place, place + 3]) - scores.double_value(&[0, 0, 0, 3]);
        assert!(difference.abs() < 1e-4, "{place}: {difference}");
    }
}

#[test]
fn layers_of_a_packed_weight_share_its_memory_and_are_saved_once() {
    let packed = [("layer.weight".to_owned(), vec![48, 128]), ("layer.bias".to_owned(), vec![48])];
    let loader = crate::models::tests::checkpoint(&packed);
    let [first, second, third] = Linear::packed::<3>(true, &loader.weights().sub("layer"), 128, 16);
    let (unused, bytes) = loader.finish().unwrap();
    assert_eq!((unused, bytes), (Vec::new(), 4 * 48 * 129));
    let module = Module::trace(&[random(&[1, 128])], |inputs| -> Result<Tensor, TorchError> {
        let sum = first.forward(&inputs[0])?.f_add(&second.forward(&inputs[0])?)?;
        Ok(sum.f_add(&third.forward(&inputs[0])?)?)
    });
    let mut archive = Vec::new();
    module.unwrap().save(&mut archive).unwrap();
    assert!(archive.len() < 4 * 48 * 129 + 16_384, "{}", archive.len());
}
