//! Python's pickle format, read as data.
//!
//! A pickle is a program for a stack machine, and unpickling runs any function that it names. [`Machine`] runs the program but calls
//! nothing: a [`Policy`] decides what a name, a call, an attribute or a persistent id becomes, and refuses everything else. Each reader of
//! pickles is one policy: PyTorch's state dicts (`checkpoint`), the records of TorchScript archives (`prebuilt`), and Python's tree
//! models (`trees`).
//!
//! Lengths are checked against the remaining bytes before anything is allocated, the number of opcodes is limited, and no function
//! recurses on the nesting of values: values refer to each other by index ([`Id`]).
//!
//! Source: `pickletools.py` of CPython (protocols 2 to 5).

mod machine;
#[cfg(test)]
mod tests;
mod values;

pub(crate) use machine::{Limits, Machine, Policy};
pub(crate) use values::{Id, Value, Values};

/// The start of a module and name for an error message, on one line.
pub(crate) fn displayed_name(module: &str, name: &str) -> String {
    // Limits the length of a hostile name in messages.
    const SHOWN: usize = 100;
    format!("{module}.{name}").escape_debug().take(SHOWN).collect()
}
