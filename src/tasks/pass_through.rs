//! pass_through: the hidden states.

use super::Definition;
use crate::config::Head;

/// Returns `[batch, tokens, hidden]`.
pub(super) struct PassThrough;

impl Definition for PassThrough {
    fn name(&self) -> &'static str {
        "pass_through"
    }

    fn head(&self) -> Head {
        Head::Base
    }
}
