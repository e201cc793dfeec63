//! The stack machine of the pickle format.

use std::collections::HashMap;
use std::mem;
use std::ops::RangeInclusive;

use super::{Id, Value, Values};

/// Longest line with a module or a name, in bytes.
const MAX_NAME: usize = 1 << 12;

/// What a reader accepts at most.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Number of opcodes. Each opcode adds at most one value, and one item to the stack, the memo or a collection.
    pub opcodes: usize,
    /// Protocol numbers that the file may declare.
    pub protocols: RangeInclusive<u8>,
    /// Lengths of long integers in bytes.
    pub long: RangeInclusive<usize>,
    /// Longest text in bytes. Longer texts become [`Value::Other`].
    pub text: usize,
    /// Pickles within a pickle.
    pub pickles: usize,
    /// Nesting of values, for readers whose file is passed on to a program that recurses on the nesting. Values of such a file must not
    /// change after another value contains them, and the memo must not have gaps.
    pub nesting: Option<u32>,
}

/// Decides what the names, calls, attributes and persistent ids of a pickle mean. Functions that return an error end the reading.
pub(crate) trait Policy<'a>: Sized {
    /// What names, calls and persistent ids become.
    type Object;
    /// The reader's error.
    type Error;
    /// The reader's limits.
    const LIMITS: Limits;

    /// An error for the opcode at a position in bytes.
    fn error(position: usize, reason: String) -> Self::Error;

    /// The error for a pickle with too many opcodes.
    fn too_many_opcodes(position: usize) -> Self::Error {
        Self::error(position, format!("there are more than {} opcodes", Self::LIMITS.opcodes))
    }

    /// The reason to refuse an opcode, if the reader's files do not contain that opcode.
    fn unsupported(opcode: u8) -> Option<String>;

    /// The value of a name.
    fn name(
        machine: &mut Machine<'a, Self>,
        module: &'a str,
        name: &'a str,
    ) -> Result<Value<'a, Self::Object>, Self::Error>;

    /// Pushes the result of a call (REDUCE).
    fn call(machine: &mut Machine<'a, Self>, callee: Id, arguments: Id) -> Result<(), Self::Error>;

    /// Pushes a new object of a class (NEWOBJ, and NEWOBJ_EX without its keyword arguments).
    fn create(
        machine: &mut Machine<'a, Self>,
        class: Id,
        arguments: Id,
    ) -> Result<(), Self::Error> {
        Self::call(machine, class, arguments)
    }

    /// Sets the state of the object on top of the stack (BUILD).
    fn build(machine: &mut Machine<'a, Self>, state: Id) -> Result<(), Self::Error>;

    /// Pushes the object of a persistent id (BINPERSID).
    fn persistent(machine: &mut Machine<'a, Self>, id: Id) -> Result<(), Self::Error>;

    /// Whether entries that are added to an object are ignored, as for a subclass of dict.
    fn ignores_entries(_object: &Self::Object) -> bool {
        false
    }
}

/// The state of a pickle that is being read.
pub(crate) struct Machine<'a, P: Policy<'a>> {
    bytes: &'a [u8],
    at: usize,
    opcode_at: usize,
    opcodes: usize,
    /// Pickles that contain the current one.
    outer_pickles: usize,
    stack: Vec<Id>,
    /// Stack heights of the marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Nesting of each value, and whether another value contains it. Empty without a limit.
    nesting: Vec<(u32, bool)>,
    /// All values.
    pub values: Values<'a, P::Object>,
    /// The reader's own state.
    pub policy: P,
}

impl<'a, P: Policy<'a>> Machine<'a, P> {
    /// A machine that reads from the byte `at` on.
    pub fn new(bytes: &'a [u8], at: usize, policy: P) -> Self {
        Self {
            bytes,
            at,
            opcode_at: at,
            opcodes: 0,
            outer_pickles: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            nesting: Vec::new(),
            values: Values::default(),
            policy,
        }
    }

    /// Runs until STOP and returns the value on top of the stack.
    pub fn run(&mut self) -> Result<Id, P::Error> {
        loop {
            self.opcode_at = self.at;
            if self.opcodes == P::LIMITS.opcodes {
                return Err(P::too_many_opcodes(self.opcode_at));
            }
            self.opcodes += 1;
            let [opcode] = self.array()?;
            if let Some(reason) = P::unsupported(opcode).filter(|_| opcode != b'i') {
                return Err(self.error(reason));
            }
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
    }

    /// Runs the pickle that starts here, which has a stack and a memo of its own. Returns its value.
    pub fn run_inner(&mut self) -> Result<Id, P::Error> {
        if self.outer_pickles == P::LIMITS.pickles {
            return Err(self.error("too many pickles within pickles"));
        }
        self.outer_pickles += 1;
        let outer =
            (mem::take(&mut self.stack), mem::take(&mut self.marks), mem::take(&mut self.memo));
        let value = self.run()?;
        (self.stack, self.marks, self.memo) = outer;
        self.outer_pickles -= 1;
        Ok(value)
    }

    fn step(&mut self, opcode: u8) -> Result<(), P::Error> {
        match opcode {
            // PROTO, FRAME
            0x80 => {
                let [protocol] = self.array()?;
                if !P::LIMITS.protocols.contains(&protocol) {
                    return Err(self.error(format!("unsupported protocol {protocol}")));
                }
                Ok(())
            }
            0x95 => self.array::<8>().map(|_| ()),
            // MARK, POP, POP_MARK, DUP
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => {
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                    return Ok(());
                }
                self.pop().map(|_| ())
            }
            b'1' => self.pop_mark().map(|_| ()),
            b'2' => {
                let top = self.top()?;
                self.push_id(top);
                Ok(())
            }
            // Constants and numbers
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(number.into()))
            }
            b'K' => {
                let [number] = self.array()?;
                self.push(Value::Int(number.into()))
            }
            b'M' => {
                let number = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(number.into()))
            }
            0x8a => {
                let length = self.length::<1>()?;
                if !P::LIMITS.long.contains(&length) {
                    return Err(self.error(format!("a long integer has {length} bytes")));
                }
                let number = long(self.take(length)?);
                self.push(number.map_or(Value::Other, Value::Int))
            }
            b'G' => {
                let number = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(number))
            }
            // Strings and bytes
            b'X' | b'T' => self.text::<4>(),
            0x8c | b'U' => self.text::<1>(),
            0x8d => self.text::<8>(),
            b'B' => self.binary::<4>(),
            b'C' => self.binary::<1>(),
            0x8e | 0x96 => self.binary::<8>(),
            // Collections
            b')' => self.push(Value::Tuple(Box::default())),
            b't' => {
                let items = self.pop_mark()?;
                self.push_collection(&items, Value::Tuple(items.as_slice().into()))
            }
            0x85..=0x87 => {
                let mut items = [0; 3];
                let items = &mut items[..usize::from(opcode - 0x84)];
                for item in items.iter_mut().rev() {
                    *item = self.pop()?;
                }
                self.push_collection(items, Value::Tuple((&*items).into()))
            }
            b']' => self.push(Value::List(Vec::new())),
            0x8f => self.push(Value::Set(Vec::new())),
            b'l' => {
                let items = self.pop_mark()?;
                self.push_collection(&items, Value::List(items.clone()))
            }
            0x91 => {
                let items = self.pop_mark()?;
                self.push_collection(&items, Value::Set(items.clone()))
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(&[item])
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend(&items)
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Value::Dict(Vec::new()))?;
                self.extend_dict(&items)
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.extend_dict(&[key, value])
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.extend_dict(&items)
            }
            // The memo
            b'q' => {
                let [slot] = self.array()?;
                self.put(slot.into())
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.put(slot)
            }
            0x94 => {
                let slot = u32::try_from(self.memo.len()).unwrap_or(u32::MAX);
                self.put(slot)
            }
            b'h' => {
                let [slot] = self.array()?;
                self.fetch(slot.into())
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.fetch(slot)
            }
            // GLOBAL, and INST, whose name is refused first if it is not allowed
            b'c' | b'i' => {
                let module = self.line()?;
                let name = self.line()?;
                let value = P::name(self, module, name)?;
                if let Some(reason) = P::unsupported(opcode) {
                    return Err(self.error(reason));
                }
                self.push(value)
            }
            // STACK_GLOBAL
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                let (&Value::Text(module), &Value::Text(name)) =
                    (self.values.get(module), self.values.get(name))
                else {
                    return Err(self.error("a name is not a string"));
                };
                let value = P::name(self, module, name)?;
                self.push(value)
            }
            // REDUCE, NEWOBJ, NEWOBJ_EX, BUILD, BINPERSID
            b'R' => {
                let arguments = self.pop()?;
                let callee = self.pop()?;
                P::call(self, callee, arguments)
            }
            0x81 => {
                let arguments = self.pop()?;
                let class = self.pop()?;
                P::create(self, class, arguments)
            }
            0x92 => {
                self.pop()?;
                let arguments = self.pop()?;
                let class = self.pop()?;
                P::create(self, class, arguments)
            }
            b'b' => {
                let state = self.pop()?;
                P::build(self, state)
            }
            b'Q' => {
                let id = self.pop()?;
                P::persistent(self, id)
            }
            other => Err(self.error(format!("opcode {other:#04x} is not supported"))),
        }
    }

    /// An error at the current opcode.
    pub fn error(&self, reason: impl Into<String>) -> P::Error {
        P::error(self.opcode_at, reason.into())
    }

    /// Position of the current opcode in bytes.
    pub fn position(&self) -> usize {
        self.opcode_at
    }

    /// Number of bytes read.
    pub fn bytes_read(&self) -> usize {
        self.at
    }

    /// Whether nothing is on the stack.
    #[cfg(feature = "torch")]
    pub fn stack_is_empty(&self) -> bool {
        self.stack.is_empty()
    }

    /// Adds a value and pushes it.
    pub fn push(&mut self, value: Value<'a, P::Object>) -> Result<(), P::Error> {
        self.push_collection(&[], value)
    }

    /// Adds a value that contains other values, and pushes it.
    pub fn push_collection(
        &mut self,
        items: &[Id],
        value: Value<'a, P::Object>,
    ) -> Result<(), P::Error> {
        let nesting = self.contain(items)?;
        let id = self.values.push(value);
        if P::LIMITS.nesting.is_some() {
            self.nesting.push((nesting, false));
        }
        self.stack.push(id);
        Ok(())
    }

    /// Pushes a value that exists.
    pub fn push_id(&mut self, id: Id) {
        self.stack.push(id);
    }

    /// The value on top of the stack. Values below the last mark belong to an unfinished collection.
    pub fn top(&self) -> Result<Id, P::Error> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = self.stack.last().filter(|_| self.stack.len() > floor);
        top.copied().ok_or_else(|| self.error("the stack is empty"))
    }

    /// Removes the value on top of the stack.
    pub fn pop(&mut self) -> Result<Id, P::Error> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// The next bytes.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], P::Error> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..length).ok_or_else(|| {
            self.error(format!(
                "the file ends too early: {length} bytes are expected but {} remain",
                rest.len()
            ))
        })?;
        self.at += length;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], P::Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, P::Error> {
        let mark = self.marks.pop().ok_or_else(|| self.error("the mark is missing"))?;
        // Not split_off, which may return a vector with the capacity of the whole stack.
        Ok(self.stack.drain(mark.min(self.stack.len())..).collect())
    }

    fn put(&mut self, slot: u32) -> Result<(), P::Error> {
        let top = self.top()?;
        if P::LIMITS.nesting.is_some() && slot as usize > self.memo.len() {
            return Err(self.error("the memo has a gap"));
        }
        self.memo.insert(slot, top);
        Ok(())
    }

    fn fetch(&mut self, slot: u32) -> Result<(), P::Error> {
        let id = self.memo.get(&slot).copied();
        let id = id.ok_or_else(|| self.error(format!("the memo has no entry {slot}")))?;
        self.push_id(id);
        Ok(())
    }

    fn extend(&mut self, items: &[Id]) -> Result<(), P::Error> {
        let list = self.top()?;
        self.extend_nesting(list, items)?;
        let extended = self.values.get_mut(list).is_some_and(|list| list.extend_items(items));
        if extended {
            Ok(())
        } else {
            Err(self.error("items are added to a value that is not a list"))
        }
    }

    fn extend_dict(&mut self, items: &[Id]) -> Result<(), P::Error> {
        let dict = self.top()?;
        self.extend_nesting(dict, items)?;
        let (pairs, odd) = items.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(self.error("a key has no value"));
        }
        match self.values.get_mut(dict) {
            Some(Value::Dict(dict)) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            Some(Value::Object(object)) if P::ignores_entries(object) => {}
            _ => return Err(self.error("entries are added to a value that is not a dict")),
        }
        Ok(())
    }

    /// Nesting of a value that contains `items`, which must not change from now on.
    fn contain(&mut self, items: &[Id]) -> Result<u32, P::Error> {
        let Some(limit) = P::LIMITS.nesting else {
            return Ok(0);
        };
        let mut nesting = 0;
        for &item in items {
            if let Some((depth, contained)) = self.nesting.get_mut(item as usize) {
                *contained = true;
                nesting = nesting.max(*depth + 1);
            }
        }
        if nesting > limit {
            return Err(self.error("its values nest too deep"));
        }
        Ok(nesting)
    }

    fn extend_nesting(&mut self, id: Id, items: &[Id]) -> Result<(), P::Error> {
        if P::LIMITS.nesting.is_none() {
            return Ok(());
        }
        let nesting = self.contain(items)?;
        match self.nesting.get_mut(id as usize) {
            Some((own, false)) => *own = nesting.max(*own),
            _ => return Err(self.error("a value changes after another value contains it")),
        }
        Ok(())
    }

    fn text<const N: usize>(&mut self) -> Result<(), P::Error> {
        let length = self.length::<N>()?;
        let text = std::str::from_utf8(self.take(length)?)
            .map_err(|_| self.error("a string is not UTF-8"))?;
        self.push(if length > P::LIMITS.text { Value::Other } else { Value::Text(text) })
    }

    fn binary<const N: usize>(&mut self) -> Result<(), P::Error> {
        let length = self.length::<N>()?;
        let bytes = self.take(length)?;
        self.push(Value::Bytes(bytes))
    }

    fn line(&mut self) -> Result<&'a str, P::Error> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let end = rest.iter().take(MAX_NAME).position(|&byte| byte == b'\n');
        let line = end.and_then(|end| std::str::from_utf8(&rest[..end]).ok());
        let line = line.ok_or_else(|| self.error("a name has no end"))?;
        self.at += line.len() + 1;
        Ok(line)
    }

    /// A length in `N` bytes.
    fn length<const N: usize>(&mut self) -> Result<usize, P::Error> {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&self.array::<N>()?);
        Ok(usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX))
    }
}

/// A two's complement number of any length. `None` if it has more than 64 bits.
fn long(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(all))
}
