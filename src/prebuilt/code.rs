//! Limits for the recursion of libtorch's parser and compiler, which have no limits and end the process when the stack overflows.

/// Highest nesting of brackets. torch.jit.save writes a few levels at most.
const MAX_DEPTH: usize = 100;

/// Longest logical line of code in bytes, because a long sum nests as deep as its number of terms. The line
/// for a list of a thousand numbers is shorter.
const MAX_LINE: usize = 1 << 16;

/// Highest number of functions, because each may call the next.
pub(super) const MAX_FUNCTIONS: usize = 10_000;

/// Highest indentation of a block in spaces.
const MAX_INDENT: usize = 200;

/// Checks a file of code against these limits. Returns the number of functions.
pub(super) fn check(text: &[u8]) -> Result<usize, &'static str> {
    let mut depth = 0usize;
    let mut line = 0;
    let mut functions = 0;
    for row in text.split_inclusive(|&byte| byte == b'\n') {
        let indent = row.iter().take_while(|&&byte| byte == b' ' || byte == b'\t').count();
        if depth == 0 && indent > MAX_INDENT {
            return Err("blocks are nested too deeply");
        }
        functions += usize::from(row.get(indent..).is_some_and(|row| row.starts_with(b"def ")));
        for byte in outside_strings(row)? {
            match byte {
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                _ => (),
            }
            if depth > MAX_DEPTH {
                return Err("expressions are nested too deeply");
            }
        }
        line += row.len();
        if line > MAX_LINE {
            return Err("a line is too long");
        }
        if depth == 0 && !row.ends_with(b"\\\n") {
            line = 0;
        }
    }
    Ok(functions)
}

/// The bytes of a line without strings and comments. torch.jit.save writes no multi-line strings.
fn outside_strings(row: &[u8]) -> Result<Vec<u8>, &'static str> {
    const OPEN: &str = "a string has no end";
    let mut kept = Vec::with_capacity(row.len());
    let mut bytes = row.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'#' => break,
            b'"' | b'\'' => {
                if bytes.as_slice().starts_with(&[byte, byte]) {
                    return Err("a string has triple quotes");
                }
                loop {
                    match bytes.next() {
                        Some(b'\\') => drop(bytes.next()),
                        Some(b'\n') | None => return Err(OPEN),
                        Some(&other) if other == byte => break,
                        Some(_) => (),
                    }
                }
            }
            _ => kept.push(byte),
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeply_nested_code_is_rejected() {
        let of = |text: String| check(text.as_bytes());
        let usual =
            "class M(Module):\n  def forward(self, x: Tensor) -> Tensor:\n    return x # (\n";
        assert_eq!(check(usual.as_bytes()), Ok(1));
        assert!(of(format!("x = {}1{}\n", "(".repeat(101), ")".repeat(101))).is_err());
        assert!(of(format!("x = {}1\n", "1+".repeat(1 << 15))).is_err());
        assert!(of(format!("x = (1\n{})\n", "+1\n".repeat(1 << 15))).is_err());
        assert!(of(format!("x = (\")\"\n{})\n", "+1\n".repeat(1 << 15))).is_err());
        assert!(of(format!("x = 1{}\n", "\\\n+1".repeat(1 << 15))).is_err());
        assert!(of(format!("{}pass", " ".repeat(300))).is_err());
        assert!(check(b"x = \"\"\")\"\"\"\n").is_err() && check(b"x = \"\n\"\n").is_err());
        assert_eq!(of("x = (1) + \"([{\\\"\"\n".repeat(1 << 15)), Ok(0));
    }
}
