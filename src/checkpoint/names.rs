//! Old spellings of parameter names.

/// The name that Transformers gives a parameter today. Checkpoints converted from TensorFlow call LayerNorm's weight gamma and its
/// bias beta.
pub(super) fn canonical(name: &str) -> String {
    if let Some(stem) = name.strip_suffix(".gamma") {
        format!("{stem}.weight")
    } else if let Some(stem) = name.strip_suffix(".beta") {
        format!("{stem}.bias")
    } else {
        name.to_owned()
    }
}
