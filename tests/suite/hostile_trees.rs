//! Damaged and hostile tree models: clear errors, bounded time and memory, and nothing is executed.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use rust_eland::trees::{self, ReadOptions};
use serde_json::{Value, json};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/trees").join(name)).unwrap()
}

fn refused(bytes: impl AsRef<[u8]>) -> String {
    let options = ReadOptions { max_inflated: 1 << 24, ..ReadOptions::default() };
    match trees::read(bytes.as_ref(), &options) {
        Ok(ensemble) => panic!("the model of {} trees is accepted", ensemble.trees.len()),
        Err(error) => error.to_string(),
    }
}

fn assert_refused(bytes: impl AsRef<[u8]>, part: &str) {
    let message = refused(bytes);
    assert!(message.contains(part), "{part:?} is not in: {message}");
    assert!(message.len() < 600, "{message}");
}

/// An XGBoost model of one split with a change.
fn xgboost(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut model = json!({
        "learner": {
            "learner_model_param": {"base_score": "0.5", "num_class": "0", "num_feature": "2"},
            "objective": {"name": "reg:squarederror"},
            "gradient_booster": {"name": "gbtree", "model": {
                "gbtree_model_param": {"num_parallel_tree": "1"},
                "tree_info": [0],
                "trees": [{
                    "tree_param": {"size_leaf_vector": "1"},
                    "left_children": [1, -1, -1],
                    "right_children": [2, -1, -1],
                    "split_indices": [0, 0, 0],
                    "split_conditions": [0.5, 1.0, 2.0],
                    "default_left": [1, 0, 0],
                    "split_type": [0, 0, 0],
                    "categories": [], "categories_nodes": [], "categories_segments": [], "categories_sizes": [],
                }],
            }},
        },
        "version": [3, 2, 0],
    });
    change(&mut model);
    model.to_string().into_bytes()
}

fn xgboost_tree(key: &'static str, value: Value) -> Vec<u8> {
    xgboost(|model| model["learner"]["gradient_booster"]["model"]["trees"][0][key] = value)
}

fn xgboost_parameter(key: &'static str, value: &str) -> Vec<u8> {
    xgboost(|model| model["learner"]["learner_model_param"][key] = value.into())
}

/// A LightGBM model of one split, with a line replaced.
fn lightgbm(old: &str, new: &str) -> String {
    let text = "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx=1\n\
        objective=regression\nfeature_names=a b\nfeature_infos=[0:1] 1:2:3\n\nTree=0\nnum_leaves=2\nnum_cat=0\n\
        split_feature=0\nsplit_gain=1\nthreshold=0.5\ndecision_type=2\nleft_child=-1\nright_child=-2\n\
        leaf_value=1 2\nleaf_count=3 4\ninternal_count=7\nshrinkage=1\n\n\nend of trees\n\npandas_categorical:null\n";
    assert!(text.contains(old), "{old}");
    text.replacen(old, new, 1)
}

/// A field of a protocol buffer with a length.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(content.len() as u64), content].concat()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// An ONNX model of one split whose children are `yes` and `no`.
fn onnx(yes: u64, no: u64, threshold: f32) -> Vec<u8> {
    let ints = |name: &str, numbers: &[u64]| {
        let packed: Vec<u8> = numbers.iter().flat_map(|&number| varint(number)).collect();
        field(5, &[field(1, name.as_bytes()), field(8, &packed)].concat())
    };
    let floats = |name: &str, numbers: &[f32]| {
        let packed: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        field(5, &[field(1, name.as_bytes()), field(7, &packed)].concat())
    };
    let modes: Vec<u8> =
        ["BRANCH_LEQ", "LEAF", "LEAF"].iter().flat_map(|mode| field(9, mode.as_bytes())).collect();
    let node = [
        field(4, b"TreeEnsembleRegressor"),
        ints("nodes_treeids", &[0, 0, 0]),
        ints("nodes_nodeids", &[0, 1, 2]),
        ints("nodes_featureids", &[0, 0, 0]),
        ints("nodes_truenodeids", &[yes, 0, 0]),
        ints("nodes_falsenodeids", &[no, 0, 0]),
        floats("nodes_values", &[threshold, 0.0, 0.0]),
        field(5, &[field(1, b"nodes_modes"), modes].concat()),
        ints("target_treeids", &[0, 0]),
        ints("target_nodeids", &[1, 2]),
        ints("target_ids", &[0, 0]),
        floats("target_weights", &[1.0, 2.0]),
    ]
    .concat();
    [vec![0x08, 8], field(7, &field(1, &node))].concat()
}

fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn models_of_one_split_are_read() {
    // Editors on Windows write a byte order mark before text.
    let marked = |text: Vec<u8>| [b"\xef\xbb\xbf".to_vec(), text].concat();
    let models = [
        xgboost(|_| ()),
        marked(xgboost(|_| ())),
        lightgbm("", "").into_bytes(),
        marked(lightgbm("", "").into_bytes()),
        onnx(1, 2, 0.5),
    ];
    for model in models {
        let ensemble = trees::read(&model, &ReadOptions::default()).unwrap();
        assert_eq!(ensemble.trees[0].nodes.len(), 3, "{:?}", ensemble.origin);
    }
}

#[test]
fn deep_nesting_is_refused_without_recursion() {
    const DEEP: usize = 200_000;
    let json = |start: &str| [start, &"[".repeat(DEEP)].concat();
    assert_refused(json("{\"learner\":{\"unknown\":"), "malformed XGBoost JSON");
    assert_refused(json("{\"tree_info\":"), "malformed LightGBM JSON");
    assert_refused(
        [&b"{L\0\0\0\0\0\0\0\x07unknown"[..], &vec![b'['; DEEP]].concat(),
        "levels of nesting",
    );
    let chain = [
        "{\"num_tree_per_iteration\":1,\"max_feature_idx\":0,\"tree_info\":[{\"tree_structure\":",
        &"{\"split_feature\":0,\"threshold\":1,\"left_child\":".repeat(DEEP),
    ];
    assert_refused(chain.concat(), "save the model as text");
    let schema = "{\"__loader__\":\"ListNode\",\"content\":[".repeat(60);
    assert_refused(zip(&[("schema.json", schema.as_bytes())]), "malformed skops file");
    assert_refused([&b"\x80\x04"[..], &vec![b']'; 1 << 23]].concat(), "opcodes");
    assert_refused([vec![0x08, 8], [0x3b].repeat(DEEP)].concat(), "malformed ONNX file");
    // A tree that is a chain.
    let count = 3_000;
    let left: Vec<i64> = (0..count).map(|node| if node % 2 == 0 { node + 1 } else { -1 }).collect();
    let right: Vec<i64> =
        (0..count).map(|node| if node % 2 == 0 { node + 2 } else { -1 }).collect();
    let chain = xgboost(|model| {
        let tree = &mut model["learner"]["gradient_booster"]["model"]["trees"][0];
        let zeros = vec![0; left.len() + 1];
        tree["left_children"] = [left, vec![-1]].concat().into();
        tree["right_children"] = [right, vec![-1]].concat().into();
        for key in ["split_indices", "split_conditions", "default_left", "split_type"] {
            tree[key] = zeros.clone().into();
        }
    });
    assert!(trees::read(&chain, &ReadOptions::default()).is_ok());
}

#[test]
fn counts_are_checked_before_allocation() {
    assert_refused(xgboost_parameter("num_feature", "1000000000000"), "features");
    assert_refused(xgboost_parameter("num_class", "1000000000000"), "classes");
    assert_refused(xgboost_parameter("num_feature", "18446744073709551616"), "num_feature");
    for (old, new, part) in [
        ("num_leaves=2", "num_leaves=1000000000000", "leaf_value has 2 items"),
        ("num_leaves=2", "num_leaves=0", "leaf_value has 2 items"),
        ("max_feature_idx=1", "max_feature_idx=1000000000000", "too many features"),
        (
            "num_tree_per_iteration=1",
            "num_tree_per_iteration=1000000000000",
            "num_tree_per_iteration",
        ),
        ("num_cat=0", "num_cat=18446744073709551615", "cat_boundaries has 0 items"),
    ] {
        assert_refused(lightgbm(old, new), part);
    }
    // Lengths of 2^60.
    for document in [
        &b"{L\0\0\0\0\0\0\0\x07learner[$d#L\x10\0\0\0\0\0\0\0"[..],
        b"{L\0\0\0\0\0\0\0\x07learner[#L\x10\0\0\0\0\0\0\0",
        b"{L\0\0\0\0\0\0\0\x07learnerSL\x10\0\0\0\0\0\0\0",
        b"{L\x10\0\0\0\0\0\0\0learner",
        b"{L\xf0\0\0\0\0\0\0\0learner",
    ] {
        assert_refused(document, "malformed XGBoost UBJSON");
    }
    assert_refused(b"\x80\x05\x8e\0\0\0\0\0\0\0\x10a.", "ends too early");
    assert_refused([&[0x08, 8, 0x3a][..], &varint(1 << 60)].concat(), "malformed ONNX file");
    let schema = br#"{"__loader__": "NdArrayNode", "file": "1.npy"}"#;
    let shape = |text: &str| {
        let header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({text}), }}\n");
        let length = (header.len() as u16).to_le_bytes();
        let array = [b"\x93NUMPY\x01\0", &length[..], header.as_bytes(), &[0; 8]].concat();
        zip(&[("schema.json", schema), ("1.npy", &array)])
    };
    for text in ["1152921504606846976,", "2,", "18446744073709551615,"] {
        assert_refused(shape(text), "do not fit its shape");
    }
    assert_refused(shape("4294967296, 4294967296, 4294967296"), "an array is too large");
    // A file that inflates to more than the limit.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&vec![0; 1 << 25]).unwrap();
    assert_refused(bomb.finish().unwrap(), "inflates to more than");
    assert_refused(zip(&[("schema.json", &vec![b' '; 1 << 25])]), "inflates to too many bytes");
}

#[test]
fn compressed_files_inflate_in_proportion_to_their_size() {
    let refused = |bytes: &[u8]| {
        let error = trees::read(bytes, &ReadOptions::default()).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("save the model without compression"), "{message}");
        message
    };
    // A gzip file can have several members.
    let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    member.write_all(&vec![0; 1 << 20]).unwrap();
    let bomb = member.finish().unwrap().repeat(96);
    assert!(bomb.len() < 1 << 20);
    assert!(refused(&bomb).contains("the gzip file inflates to more than"));
    let schema = [b"[", &b"0,".repeat(3 << 20)[..], b"0]"].concat();
    assert!(refused(&zip(&[("schema.json", &schema)])).contains("schema.json of the skops"));
}

#[test]
fn counts_that_differ_from_the_content_are_refused() {
    let trees = |key: &str, value: &str| {
        xgboost(|model| {
            model["learner"]["gradient_booster"]["model"]["gbtree_model_param"][key] = value.into();
        })
    };
    assert_refused(trees("num_trees", "2"), "num_trees is 2, but the file has 1 trees");
    assert_refused(trees("num_trees", "x"), "num_trees is \"x\"");
    assert_refused(
        xgboost_tree("tree_param", json!({"num_nodes": "4"})),
        "num_nodes is \"4\", but the tree has 3 nodes",
    );
    assert_refused(
        xgboost(|model| {
            model["learner"]["gradient_booster"]["model"]["trees"] = json!([]);
            model["learner"]["gradient_booster"]["model"]["tree_info"] = json!([]);
        }),
        "a model without trees is not supported",
    );
    assert_refused(
        lightgbm("feature_infos=", "tree_sizes=100 200\nfeature_infos="),
        "tree_sizes lists 2 trees",
    );
    assert_refused(lightgbm("num_class=1", "num_class=3"), "num_class is 3");
    assert_refused(
        lightgbm("feature_names=a b", "feature_names=a b c"),
        "3 feature names for 2 features",
    );
    assert_refused(lightgbm("Tree=0", "Tree=1"), "expected tree 0");
}

#[test]
fn formats_that_are_not_read_are_named() {
    for (bytes, part) in [
        (
            &b"ccopy_reg\n_reconstructor\np0\n(csklearn.tree._classes\nDecisionTreeRegressor\n"[..],
            "protocol 0 or 1",
        ),
        (b"ccopy_reg\n_reconstructor\nq\x00(csklearn", "protocol 0 or 1"),
        (b"(ixgboost.core\nBooster\np0\n", "protocol 0 or 1"),
        (b"binf\0\0", "save_model(\"model.json\")"),
        (b"booster[0]:\n0:leaf=1", "save_model(\"model.json\")"),
        (b"[{\"nodeid\": 0}]", "save_model(\"model.json\")"),
        (b"{U\x07learner{}}", "malformed XGBoost UBJSON"),
        (b"{i\x07learner{}}", "malformed XGBoost UBJSON"),
        (b"{$i#i\x01", "objects with a count"),
        (b"cat,dog\nx,y\n1,2\n", "not a model of XGBoost"),
    ] {
        assert_refused(bytes, part);
    }
}

#[test]
fn cycles_and_children_out_of_range_are_refused() {
    for (key, children, part) in [
        ("left_children", [0, -1, -1], "node 0 has two parents"),
        ("left_children", [2, -1, -1], "node 2 has two parents"),
        ("left_children", [3, -1, -1], "node 3 does not exist"),
        ("left_children", [i32::MAX, -1, -1], "does not exist"),
        ("right_children", [-5, -1, -1], "does not exist"),
    ] {
        assert_refused(xgboost_tree(key, json!(children)), part);
    }
    assert_refused(xgboost_tree("left_children", json!([1, -1])), "items for");
    assert_refused(xgboost_tree("split_indices", json!([2, 0, 0])), "tests feature 2 of 2");
    for (old, new, part) in [
        ("left_child=-1", "left_child=0", "node 0 has two parents"),
        ("left_child=-1", "left_child=-2", "has two parents"),
        ("left_child=-1", "left_child=-3", "does not exist"),
        ("left_child=-1", "left_child=9223372036854775807", "there is no child"),
        ("left_child=-1", "left_child=-9223372036854775808", "there is no child"),
        ("split_feature=0", "split_feature=2", "tests feature 2 of 2"),
        ("decision_type=2", "decision_type=1", "has no categories"),
        ("decision_type=2", "decision_type=14", "missing type 3"),
    ] {
        assert_refused(lightgbm(old, new), part);
    }
    assert_refused(onnx(0, 2, 0.5), "node 0 has two parents");
    assert_refused(onnx(1, 1, 0.5), "node 1 has two parents");
    assert_refused(onnx(1, 7, 0.5), "no node 7");
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    assert_refused(xgboost_parameter("base_score", "NaN"), "not a finite number");
    assert_refused(xgboost_parameter("base_score", "inf"), "not a finite number");
    for score in ["1E400", "1E400[5.6E0]", "[1E400]"] {
        let reason = format!("base_score is {score:?}, which is not a finite number");
        assert_refused(xgboost_parameter("base_score", score), &reason);
    }
    assert_refused(xgboost_parameter("base_score", "[1,2]"), "2 numbers for 1 outputs");
    let leaf = String::from_utf8(xgboost(|_| ())).unwrap();
    for number in ["1e999", "-1e999"] {
        assert!(
            !refused(leaf.replacen("[0.5,1.0,2.0]", &format!("[0.5,{number},2.0]"), 1)).is_empty()
        );
    }
    for token in ["NaN", "Infinity"] {
        assert_refused(
            leaf.replacen("[0.5,1.0,2.0]", &format!("[0.5,{token},2.0]"), 1),
            "malformed",
        );
    }
    for (old, new, part) in [
        ("leaf_value=1 2", "leaf_value=nan 2", "has the value NaN"),
        ("leaf_value=1 2", "leaf_value=1 inf", "has the value inf"),
        ("threshold=0.5", "threshold=nan", "invalid test"),
    ] {
        assert_refused(lightgbm(old, new), part);
    }
    assert_refused(onnx(1, 2, f32::NAN), "invalid test");
}

#[test]
fn pickles_with_other_names_are_refused_and_not_executed() {
    for (pickle, name) in [
        (&b"\x80\x02cposix\nsystem\nX\x04\0\0\0true\x85R."[..], "posix.system"),
        (b"\x80\x02cbuiltins\neval\nX\x01\0\0\x001\x85R.", "builtins.eval"),
        (b"\x80\x02cbuiltins\ngetattr\n.", "builtins.getattr"),
        (b"\x80\x04\x8c\x0asubprocess\x8c\x05Popen\x93.", "subprocess.Popen"),
        (b"\x80\x02cnumpy\nload\n.", "numpy.load"),
        (b"\x80\x02cjoblib\nload\n.", "joblib.load"),
        (b"\x80\x02csklearn.tree._classes\nos.system\n.", "sklearn.tree._classes.os.system"),
    ] {
        assert_refused(pickle, "refusing the pickle");
        assert_refused(pickle, name);
    }
    // The name of a supported class is replaced.
    let mut model = fixture("sklearn-1.9.1-extra-tree.pkl");
    let name = b"ExtraTreeClassifier";
    let at = model.windows(name.len()).position(|window| window == name).unwrap();
    model[at..at + 4].copy_from_slice(b"Evil");
    assert_refused(model, "EvilaTreeClassifier");
}

#[test]
fn skops_archives_with_paths_that_lead_out_are_refused() {
    let schema = br#"{"__loader__": "JsonNode", "content": "1"}"#;
    for name in ["../evil.npy", "/etc/passwd", "a/../../b", "a\\..\\b", "C:\\b"] {
        let archive = zip(&[("schema.json", schema), (name, b"x")]);
        assert_refused(archive, "leads out of the archive");
    }
    let named = br#"{"__loader__": "NdArrayNode", "file": "../../etc/passwd"}"#;
    assert_refused(zip(&[("schema.json", named)]), "../../etc/passwd");
    assert_refused(zip(&[("other.json", schema)]), "schema.json");
    assert_refused(b"PK\x03\x04", "malformed skops file");
    // What is wrong with an object is the archive's fault too.
    let tree = br#"{"__loader__": "ObjectNode", "__module__": "sklearn.tree._classes", "__class__": "DecisionTreeRegressor",
        "content": {"__loader__": "DictNode", "content": {"_sklearn_version": {"__loader__": "JsonNode", "content": "\"1.9.1\""}}}}"#;
    assert_refused(zip(&[("schema.json", tree)]), "malformed skops file");
}

#[test]
fn features_that_are_numbers_and_categories_are_refused() {
    let mixed = xgboost(|model| {
        let tree = &mut model["learner"]["gradient_booster"]["model"]["trees"][0];
        *tree = json!({
            "tree_param": {},
            "left_children": [1, 3, -1, -1, -1],
            "right_children": [2, 4, -1, -1, -1],
            "split_indices": [0, 0, 0, 0, 0],
            "split_conditions": [0.5, 1.0, 2.0, 3.0, 4.0],
            "default_left": [0, 0, 0, 0, 0],
            "split_type": [0, 1, 0, 0, 0],
            "categories": [1], "categories_nodes": [1], "categories_segments": [0], "categories_sizes": [1],
        });
    });
    assert_refused(mixed, "as a number and as a category");
    assert_refused(
        lightgbm("pandas_categorical:null", "pandas_categorical:[[\"1\", 1]]"),
        "two categories \"1\"",
    );
}
