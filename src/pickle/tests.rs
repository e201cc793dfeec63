//! The machine with a policy that accepts one name.

use super::*;

struct Anything;

impl<'a> Policy<'a> for Anything {
    type Object = ();
    type Error = String;

    const LIMITS: Limits = Limits {
        opcodes: 1 << 12,
        protocols: 2..=5,
        long: 0..=255,
        text: usize::MAX,
        pickles: 0,
        nesting: None,
    };

    fn error(position: usize, reason: String) -> String {
        format!("{position}: {reason}")
    }

    fn unsupported(opcode: u8) -> Option<String> {
        (opcode == b'i').then(|| "INST".to_owned())
    }

    fn name(
        machine: &mut Machine<'a, Self>,
        module: &'a str,
        name: &'a str,
    ) -> Result<Value<'a, ()>, String> {
        match module {
            "allowed" => Ok(Value::Object(())),
            _ => Err(machine.error(displayed_name(module, name))),
        }
    }

    fn call(machine: &mut Machine<'a, Self>, _callee: Id, _arguments: Id) -> Result<(), String> {
        machine.push(Value::Object(()))
    }

    fn build(machine: &mut Machine<'a, Self>, _state: Id) -> Result<(), String> {
        machine.top().map(|_| ())
    }

    fn persistent(machine: &mut Machine<'a, Self>, _id: Id) -> Result<(), String> {
        machine.push(Value::None)
    }
}

fn run(bytes: &[u8]) -> Result<(Machine<'_, Anything>, Id), String> {
    let mut machine = Machine::new(bytes, 0, Anything);
    let root = machine.run()?;
    Ok((machine, root))
}

fn refused(bytes: impl AsRef<[u8]>) -> String {
    match run(bytes.as_ref()) {
        Ok(_) => panic!("{:?} is accepted", bytes.as_ref()),
        Err(reason) => reason,
    }
}

#[test]
fn stack_underflow_is_an_error() {
    for pickle in [
        &b"."[..],
        b"0.",
        b"1.",
        b"2.",
        b"t.",
        b"K\x01(\x85.",
        b"]a.",
        b"K\x01K\x02a.",
        b"(s.",
        b"}(K\x01u.",
        b"R.",
        b"Q.",
        b"b.",
        b"h\x07.",
        b"q\x00.",
        b"\x93.",
        b"K\x01K\x01\x93.",
        b"\x94.",
        b"e.",
        b"(e.",
        b"(d0(K\x01d.",
        b"\x80\x01.",
        b"(K\x010.",
        b"\xff.",
        b"i",
        b"c\n",
        b"callowed\nx\nK\x01s.",
    ] {
        refused(pickle);
    }
}

#[test]
fn lengths_are_checked_before_allocation() {
    for pickle in [
        &b"X\xff\xff\xff\xffa."[..],
        b"B\xff\xff\xff\xffa.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fa.",
        b"\x96\x00\x00\x00\x00\x00\x00\x00\x10a.",
        b"\x8a\xff\x01.",
        b"\x80\x02}",
        b"",
    ] {
        assert!(refused(pickle).contains("the file ends too early"), "{pickle:?}");
    }
}

#[test]
fn names_are_refused_in_every_spelling() {
    for (pickle, position) in [
        (&b"\x80\x02cos\nsystem\n."[..], 2),
        (b"(ios\nsystem\n.", 1),
        (b"\x8c\x02os\x8c\x06system\x93.", 12),
    ] {
        assert_eq!(refused(pickle), format!("{position}: os.system"));
    }
    assert_eq!(refused(b"(iallowed\nname\n."), "1: INST");
    assert!(refused([b"c", &[b'a'; 10_000][..], b"\nb\n."].concat()).contains("no end"));
}

#[test]
fn opcodes_are_limited_and_nesting_uses_no_stack() {
    let depth = Anything::LIMITS.opcodes / 2 - 1;
    assert!(run(&[vec![b']'; depth], vec![b'a'; depth - 1], vec![b'.']].concat()).is_ok());
    assert!(refused(vec![b']'; 1 << 13]).contains("more than 4096 opcodes"));
    // A list that contains itself.
    assert!(run(b"]q\x00h\x00a.").is_ok());
}

#[test]
fn integers_of_every_width_are_read() {
    for (pickle, expected) in [
        (&b"K\xff."[..], Some(255)),
        (b"M\x01\x02.", Some(513)),
        (b"J\xff\xff\xff\xff.", Some(-1)),
        (b"\x8a\x00.", Some(0)),
        (b"\x8a\x02\x00\x80.", Some(-32768)),
        (b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01.", None),
    ] {
        let (machine, root) = run(pickle).unwrap();
        let number = match machine.values.get(root) {
            Value::Int(number) => Some(*number),
            _ => None,
        };
        assert_eq!(number, expected, "{pickle:?}");
    }
}
