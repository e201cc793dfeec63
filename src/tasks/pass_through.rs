//! pass_through: the hidden states, for whoever wants to work on them.

use super::Definition;
use crate::config::Head;

/// `[batch, tokens, hidden]`.
pub(super) struct PassThrough;

impl Definition for PassThrough {
    fn name(&self) -> &'static str {
        "pass_through"
    }

    fn head(&self) -> Head {
        Head::Base
    }
}
