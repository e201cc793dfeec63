//! The modules of `src/` keep to the layers that CONTRIBUTING.md lists: no upward import, no import cycle, no module without a row, and no
//! path from code that is always compiled to code behind a cargo feature.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Cargo features that a module or a path requires, from its `#[cfg(feature = "…")]` attributes.
type Features = BTreeSet<String>;

/// The row of each top-level module, counted from the top, and the features that the table states for it.
type Layers = BTreeMap<String, (usize, Features)>;

/// A path that starts with `crate::`, `super::` or `self::`, resolved to segments from the crate's root.
struct Reference {
    /// Segments of the module that contains the path.
    module: Vec<String>,
    target: Vec<String>,
    /// Features of the attributes around the path, those of its module included.
    features: Features,
    /// File, line number and text, for messages.
    place: String,
}

/// All modules and paths of a crate.
#[derive(Default)]
struct Sources {
    modules: BTreeMap<Vec<String>, Features>,
    references: Vec<Reference>,
}

impl Sources {
    /// Reads a crate from its root file `lib.rs`; `read` returns the text of a file of `src/`, if that file exists.
    fn new(read: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut sources = Self::default();
        sources.file("lib.rs", Vec::new(), Features::new(), read);
        sources
    }

    fn file(
        &mut self,
        name: &str,
        module: Vec<String>,
        features: Features,
        read: &dyn Fn(&str) -> Option<String>,
    ) {
        let text = read(name).unwrap_or_else(|| panic!("src/{name} does not exist"));
        let tokens: TokenStream =
            text.parse().unwrap_or_else(|error| panic!("src/{name}: {error}"));
        let lines: Vec<_> = text.lines().collect();
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut declared = Vec::new();
        let mut scan = Scan { name, lines: &lines, sources: self, declared: &mut declared };
        scan.tokens(&tokens, &module, &features);
        for (module, features) in declared {
            let stem = module.join("/");
            let (file, folder) = (format!("{stem}.rs"), format!("{stem}/mod.rs"));
            let name = if read(&file).is_some() { file } else { folder };
            self.file(&name, module, features, read);
        }
    }

    /// The path with the re-exports of lib.rs replaced by what they stand for: `crate::Bundle` is `crate::bundle::Bundle`.
    fn resolved<'a>(&'a self, target: &'a [String]) -> &'a [String] {
        let exported = self.references.iter().find(|reference| {
            reference.module.is_empty()
                && reference.target.len() > 1
                && reference.target.last() == target.first()
        });
        match exported {
            Some(exported) if !self.modules.contains_key(&target[..1]) => &exported.target,
            _ => target,
        }
    }

    /// The longest part of a path that names a module.
    fn module_of(&self, target: &[String]) -> Vec<String> {
        let known = |length: &usize| self.modules.contains_key(&target[..*length]);
        target[..(1..=target.len()).rev().find(known).unwrap_or(0)].to_vec()
    }

    /// One message per broken rule.
    fn violations(&self, layers: &Layers) -> Vec<String> {
        let mut found = Vec::new();
        for (module, features) in self.modules.iter().filter(|(module, _)| module.len() == 1) {
            match layers.get(&module[0]) {
                None => found.push(format!("`{}` has no row in CONTRIBUTING.md", module[0])),
                Some((_, stated)) if stated != features => found.push(format!(
                    "`{}` requires the features {features:?}, and CONTRIBUTING.md states {stated:?}",
                    module[0]
                )),
                Some(_) => {}
            }
        }
        for module in
            layers.keys().filter(|name| !self.modules.contains_key(&vec![(*name).clone()]))
        {
            found.push(format!("CONTRIBUTING.md lists `{module}`, which does not exist in src/"));
        }
        let mut edges: BTreeMap<&str, BTreeMap<String, &str>> = BTreeMap::new();
        for reference in self.references.iter().filter(|reference| !reference.module.is_empty()) {
            let target = self.module_of(self.resolved(&reference.target));
            let (Some(from), Some(to)) = (reference.module.first(), target.first()) else {
                if !reference.target.is_empty() {
                    found.push(format!("{}\n    names no module of src/", reference.place));
                }
                continue;
            };
            let required = self.modules[&target].difference(&reference.features);
            let required: Vec<_> = required.map(String::as_str).collect();
            if !required.is_empty() {
                found.push(format!(
                    "{}\n    `{}` requires the feature {}, and this line does not",
                    reference.place,
                    target.join("::"),
                    required.join(" and ")
                ));
            }
            if from == to {
                continue;
            }
            edges.entry(from).or_default().entry(to.clone()).or_insert(&reference.place);
            if let (Some((above, _)), Some((below, _))) = (layers.get(from), layers.get(to))
                && above >= below
            {
                found.push(format!(
                    "{}\n    `{from}` is in row {above} and must not import `{to}`, which is in row {below}",
                    reference.place
                ));
            }
        }
        // A line that imports several names of a module is reported once.
        found.dedup();
        found.extend(cycle(&edges));
        found
    }
}

/// A cycle of imports, if one exists: each line of the message is an import that is part of the cycle.
fn cycle(edges: &BTreeMap<&str, BTreeMap<String, &str>>) -> Option<String> {
    // A module without remaining imports, or one that nothing remaining imports, is in no cycle.
    let mut remaining: BTreeSet<&str> = edges.keys().copied().collect();
    loop {
        let imports = |module: &str| edges[module].keys().any(|to| remaining.contains(to.as_str()));
        let imported = |module: &str| remaining.iter().any(|from| edges[from].contains_key(module));
        let kept: BTreeSet<_> = remaining
            .iter()
            .copied()
            .filter(|module| imports(module) && imported(module))
            .collect();
        if kept.len() == remaining.len() {
            break;
        }
        remaining = kept;
    }
    let mut module = *remaining.first()?;
    let mut path = Vec::new();
    while !path.contains(&module) {
        path.push(module);
        module = edges[module].keys().find(|to| remaining.contains(to.as_str()))?;
    }
    path.drain(..path.iter().position(|step| *step == module)?);
    let mut text = "import cycle:".to_owned();
    for (index, from) in path.iter().enumerate() {
        let to = path[(index + 1) % path.len()];
        write!(text, "\n    {from} → {to}: {}", edges[from][to]).unwrap();
    }
    Some(text)
}

/// Collects the modules and paths of one file.
struct Scan<'a> {
    name: &'a str,
    lines: &'a [&'a str],
    sources: &'a mut Sources,
    /// Modules with a file of their own.
    declared: &'a mut Vec<(Vec<String>, Features)>,
}

impl Scan<'_> {
    fn tokens(&mut self, tokens: &[TokenTree], module: &[String], features: &Features) {
        let mut features = features.clone();
        let mut at = 0;
        while at < tokens.len() {
            let rest = &tokens[at..];
            if let Some(attribute) = attribute(rest, true) {
                // `#![cfg(…)]` applies to the rest of the file or block.
                features.extend(attribute);
                at += 3;
            } else if attribute(rest, false).is_some() {
                let mut inner = features.clone();
                let mut start = 0;
                while let Some(required) = attribute(&rest[start..], false) {
                    inner.extend(required);
                    start += 2;
                }
                let end = start + item_length(&rest[start..]);
                self.tokens(&rest[start..end], module, &inner);
                at += end;
            } else if let Some(length) = self.module(rest, module, &features) {
                at += length;
            } else if let Some(length) = self.path(rest, module, &features) {
                at += length;
            } else {
                if let TokenTree::Group(group) = &tokens[at] {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    self.tokens(&inner, module, &features);
                }
                at += 1;
            }
        }
    }

    /// Reads `mod name;` or `mod name { … }`.
    fn module(
        &mut self,
        tokens: &[TokenTree],
        parent: &[String],
        features: &Features,
    ) -> Option<usize> {
        let [TokenTree::Ident(keyword), TokenTree::Ident(name), body, ..] = tokens else {
            return None;
        };
        if keyword != "mod" {
            return None;
        }
        let mut module = parent.to_vec();
        module.push(name.to_string());
        self.sources.modules.insert(module.clone(), features.clone());
        match body {
            TokenTree::Group(group) => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                self.tokens(&inner, &module, features);
            }
            _ => self.declared.push((module, features.clone())),
        }
        Some(3)
    }

    /// Reads a path that starts with `crate::`, `self::` or `super::`, with all branches of its braces; in lib.rs also `use module::…`.
    fn path(
        &mut self,
        tokens: &[TokenTree],
        module: &[String],
        features: &Features,
    ) -> Option<usize> {
        let TokenTree::Ident(first) = &tokens[0] else { return None };
        if first == "use" && module.is_empty() {
            return Some(1 + self.branches(&tokens[1..], &[], module, features));
        }
        let mut target = match first.to_string().as_str() {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module[..module.len().checked_sub(1)?].to_vec(),
            _ => return None,
        };
        if !separator(&tokens[1..]) {
            return None;
        }
        let mut at = 3;
        while matches!(&tokens[at], TokenTree::Ident(segment) if segment == "super")
            && separator(&tokens[at + 1..])
        {
            target.pop();
            at += 3;
        }
        Some(at + self.branches(&tokens[at..], &target, module, features))
    }

    /// Reads the rest of a path after `prefix` and returns the count of its tokens.
    fn branches(
        &mut self,
        tokens: &[TokenTree],
        prefix: &[String],
        module: &[String],
        features: &Features,
    ) -> usize {
        let mut target = prefix.to_vec();
        let mut at = 0;
        loop {
            match tokens.get(at) {
                Some(TokenTree::Ident(segment)) => {
                    let line = segment.span().start().line;
                    if segment != "self" {
                        target.push(segment.to_string());
                    }
                    at += 1;
                    if separator(&tokens[at..])
                        && !matches!(&tokens[at + 2], TokenTree::Punct(sign) if sign.as_char() == '<')
                    {
                        at += 2;
                        continue;
                    }
                    self.reference(target, line, module, features);
                }
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    let comma = |token: &TokenTree| matches!(token, TokenTree::Punct(sign) if sign.as_char() == ',');
                    for branch in inner.split(comma).filter(|branch| !branch.is_empty()) {
                        self.branches(branch, &target, module, features);
                    }
                    at += 1;
                }
                // A glob: everything in the module named so far.
                Some(TokenTree::Punct(sign)) if sign.as_char() == '*' => {
                    let line = sign.span().start().line;
                    self.reference(target, line, module, features);
                    at += 1;
                }
                _ => {}
            }
            return at;
        }
    }

    fn reference(
        &mut self,
        target: Vec<String>,
        line: usize,
        module: &[String],
        features: &Features,
    ) {
        let place = format!("src/{}:{line}: {}", self.name, self.lines[line - 1].trim());
        let (module, features) = (module.to_vec(), features.clone());
        self.sources.references.push(Reference { module, target, features, place });
    }
}

/// Whether the tokens begin with `::`.
fn separator(tokens: &[TokenTree]) -> bool {
    let colon =
        |token: &TokenTree| matches!(token, TokenTree::Punct(sign) if sign.as_char() == ':');
    tokens.len() > 2 && colon(&tokens[0]) && colon(&tokens[1])
}

/// The features that the attribute at the start of the tokens requires; none for an attribute that is not `cfg`. `inner` stands for the
/// form `#![…]`.
fn attribute(tokens: &[TokenTree], inner: bool) -> Option<Features> {
    let sign = |at: usize, wanted: char| matches!(tokens.get(at), Some(TokenTree::Punct(sign)) if sign.as_char() == wanted);
    if !sign(0, '#') || sign(1, '!') != inner {
        return None;
    }
    let Some(TokenTree::Group(group)) = tokens.get(if inner { 2 } else { 1 }) else { return None };
    let content: Vec<_> = group.stream().into_iter().collect();
    Some(match &content[..] {
        [TokenTree::Ident(name), TokenTree::Group(condition)] if name == "cfg" => {
            required(condition.stream())
        }
        _ => Features::new(),
    })
}

/// The features without which a condition is false: `feature = "x"`, alone or within `all(…)`.
fn required(condition: TokenStream) -> Features {
    let tokens: Vec<_> = condition.into_iter().collect();
    let mut found = Features::new();
    for (at, token) in tokens.iter().enumerate() {
        match (token, &tokens[at + 1..]) {
            (TokenTree::Ident(name), [_, TokenTree::Literal(feature), ..]) if name == "feature" => {
                found.insert(feature.to_string().trim_matches('"').to_owned());
            }
            (TokenTree::Ident(name), [TokenTree::Group(inner), ..]) if name == "all" => {
                found.extend(required(inner.stream()));
            }
            _ => {}
        }
    }
    found
}

/// The count of tokens of the item, statement, field or match arm at the start of the tokens.
fn item_length(tokens: &[TokenTree]) -> usize {
    const ITEMS: [&str; 15] = [
        "async", "const", "enum", "extern", "fn", "impl", "let", "mod", "pub", "static", "struct",
        "trait", "type", "unsafe", "use",
    ];
    let word = |token: &TokenTree| matches!(token, TokenTree::Ident(word) if ITEMS.contains(&word.to_string().as_str()));
    let item = tokens.first().is_some_and(word);
    let open = |token: &TokenTree| matches!(token, TokenTree::Ident(word) if word == "use" || word == "let");
    let braces_end = !tokens.iter().take(3).any(open);
    let end = tokens.iter().position(|token| match token {
        TokenTree::Punct(sign) => sign.as_char() == ';' || (sign.as_char() == ',' && !item),
        TokenTree::Group(group) => braces_end && group.delimiter() == Delimiter::Brace,
        _ => false,
    });
    end.map_or(tokens.len(), |end| end + 1)
}

/// The table of layers: rows that begin with a number, then modules in backticks with their feature in brackets.
fn layers(text: &str) -> Layers {
    let mut layers = Layers::new();
    for line in text.lines() {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Some(row) = cells[0].parse().ok().filter(|_| line.starts_with('|')) else { continue };
        for module in cells[1].split(',') {
            let (name, feature) = module.trim().split_once(" (").unwrap_or((module.trim(), ""));
            let features =
                Some(feature.trim_end_matches(')')).filter(|feature| !feature.is_empty());
            let stated = (row, features.map(str::to_owned).into_iter().collect());
            let before = layers.insert(name.trim_matches('`').to_owned(), stated);
            assert!(before.is_none(), "CONTRIBUTING.md lists {name} twice");
        }
    }
    layers
}

#[test]
fn source_modules_follow_the_layers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let layers = layers(&fs::read_to_string(root.join("CONTRIBUTING.md")).unwrap());
    let sources = Sources::new(&|name| fs::read_to_string(root.join("src").join(name)).ok());
    assert!(sources.references.len() > 500, "the source was not read");
    let found = sources.violations(&layers);
    assert!(
        found.is_empty(),
        "{} violations of CONTRIBUTING.md#layers:\n\n{}",
        found.len(),
        found.join("\n")
    );
}

/// The violations of a crate with the rows `top`, then `left` and `right`, then `bottom (torch)`.
fn violations(files: &[(&str, &str)]) -> Vec<String> {
    let table = "| row | modules | purpose |\n|---|---|---|\n| 1 | `top` | |\n| 2 | `left`, `right` | |\n| 3 | `bottom` (torch) | |";
    let root =
        "mod top; mod left; mod right; #[cfg(feature = \"torch\")] mod bottom; pub use left::Name;";
    let read = |name: &str| {
        let file = files.iter().find(|(file, _)| *file == name);
        let absent =
            if name == "lib.rs" { Some(root) } else { (!name.contains('/')).then_some("") };
        file.map(|(_, text)| *text).or(absent).map(str::to_owned)
    };
    Sources::new(&read).violations(&layers(table))
}

#[test]
fn downward_imports_are_accepted() {
    let top =
        "use crate::left::{self, Name}; fn name() { println!(\"{}\", crate::right::name()); }";
    assert_eq!(violations(&[("top.rs", top)]), [""; 0]);
}

#[test]
fn upward_import_is_reported_with_its_line() {
    let found =
        violations(&[("left.rs", "// A comment: crate::right.\nuse crate::{\n    top::Name,\n};")]);
    assert_eq!(
        found,
        [
            "src/left.rs:3: top::Name,\n    `left` is in row 2 and must not import `top`, which is in row 1"
        ]
    );
}

#[test]
fn import_from_the_same_row_is_reported() {
    assert_eq!(violations(&[("right.rs", "use crate::left::Name;")]).len(), 1);
}

#[test]
fn path_in_a_macro_call_is_reported() {
    assert_eq!(
        violations(&[("left.rs", "fn f() { println!(\"{}\", crate::top::name()); }")]).len(),
        1
    );
}

#[test]
fn super_path_that_leaves_its_module_is_reported() {
    assert_eq!(violations(&[("left.rs", "mod inner { use super::super::top::Name; }")]).len(), 1);
    assert_eq!(violations(&[("left.rs", "mod inner { use super::Name; }")]), [""; 0]);
}

#[test]
fn reexport_of_the_root_counts_as_its_module() {
    assert_eq!(violations(&[("right.rs", "use crate::Name;")]).len(), 1);
    assert_eq!(violations(&[("top.rs", "use crate::Name;")]), [""; 0]);
}

#[test]
fn import_of_an_unknown_name_is_reported() {
    assert_eq!(violations(&[("top.rs", "use crate::nowhere::Name;")]).len(), 1);
}

#[test]
fn module_without_a_row_is_reported() {
    let root = "mod top; mod left; mod right; #[cfg(feature = \"torch\")] mod bottom; mod other;";
    assert_eq!(violations(&[("lib.rs", root)]), ["`other` has no row in CONTRIBUTING.md"]);
}

#[test]
fn row_without_a_module_is_reported() {
    let root = "mod top; mod left; #[cfg(feature = \"torch\")] mod bottom;";
    assert_eq!(
        violations(&[("lib.rs", root)]),
        ["CONTRIBUTING.md lists `right`, which does not exist in src/"]
    );
}

#[test]
fn import_of_a_gated_module_requires_its_feature() {
    assert_eq!(violations(&[("top.rs", "use crate::bottom::Name;")]).len(), 1);
    let item = "#[cfg(feature = \"torch\")]\nuse crate::{bottom::Name, left};\nuse crate::right;";
    assert_eq!(violations(&[("top.rs", item)]), [""; 0]);
    let nested = "#[cfg(all(test, feature = \"torch\"))]\nimpl A<B, C> for D { fn f() { crate::bottom::f() } }";
    assert_eq!(violations(&[("top.rs", nested)]), [""; 0]);
    let either = "#[cfg(any(test, feature = \"torch\"))]\nuse crate::bottom::Name;";
    assert_eq!(violations(&[("top.rs", either)]).len(), 1);
    let after = "#[cfg(feature = \"torch\")]\nfn f() {}\nuse crate::bottom::Name;";
    assert_eq!(violations(&[("top.rs", after)]).len(), 1);
}

#[test]
fn import_cycle_is_reported_with_its_lines() {
    let found = violations(&[("left.rs", "use crate::top;"), ("top.rs", "use crate::left;")]);
    assert_eq!(found.len(), 2);
    assert_eq!(
        found[1],
        "import cycle:\n    left → top: src/left.rs:1: use crate::top;\n    top → left: src/top.rs:1: use crate::left;"
    );
}
