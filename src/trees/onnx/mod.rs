//! ONNX models with one tree ensemble: `TreeEnsembleRegressor`, `TreeEnsembleClassifier` or `TreeEnsemble` of `ai.onnx.ml`.
//!
//! Converters of scikit-learn, XGBoost and LightGBM write them, and CatBoost's own export. Thresholds and leaves are float32, so that the
//! predictions are those of the ONNX file, not of the original model.

use std::collections::HashMap;

use prost::Message;

mod tree_ensemble;

use super::TreeError;
use super::ensemble::{
    Ensemble, Label, MAX_CLASSES, MAX_FEATURES, Node, Origin, Prediction, Side, Test, Tree,
    features_named,
};

const FORMAT: &str = "ONNX";

/// The parts of `onnx.proto` that are read.
#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    i: i64,
    #[prost(bytes = "vec", tag = "4")]
    s: Vec<u8>,
    #[prost(message, optional, tag = "5")]
    t: Option<TensorProto>,
    #[prost(float, repeated, tag = "7")]
    floats: Vec<f32>,
    #[prost(int64, repeated, tag = "8")]
    ints: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    strings: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    int32_data: Vec<i32>,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
    #[prost(double, repeated, tag = "10")]
    double_data: Vec<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfoProto {
    #[prost(message, optional, tag = "2")]
    kind: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorTypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorTypeProto {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<ShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct ShapeProto {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<DimensionProto>,
}

#[derive(Clone, PartialEq, Message)]
struct DimensionProto {
    #[prost(int64, tag = "1")]
    dim_value: i64,
}

fn malformed(reason: impl Into<String>) -> TreeError {
    TreeError::malformed(FORMAT, reason)
}

/// The attributes of the ensemble, by name.
struct Attributes<'a>(HashMap<&'a str, &'a AttributeProto>);

impl Attributes<'_> {
    fn ints(&self, name: &str) -> &[i64] {
        self.0.get(name).map_or(&[], |attribute| &attribute.ints)
    }

    fn text(&self, name: &str) -> String {
        self.0.get(name).map_or_else(String::new, |attribute| {
            String::from_utf8_lossy(&attribute.s).into_owned()
        })
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.0.get(name).map(|attribute| attribute.i)
    }

    /// The numbers of a tensor. The flag says whether they are doubles.
    fn tensor(&self, name: &str) -> Result<(Vec<f64>, bool), TreeError> {
        let missing = || malformed(format!("the attribute {name} is missing"));
        let tensor = self.0.get(name).and_then(|it| it.t.as_ref()).ok_or_else(missing)?;
        let raw = tensor.raw_data.as_slice();
        let (numbers, odd): (Vec<f64>, _) = match tensor.data_type {
            FLOAT => {
                let (raw, odd) = raw.as_chunks::<4>();
                let raw = raw.iter().map(|bytes| f32::from_le_bytes(*bytes));
                (raw.chain(tensor.float_data.iter().copied()).map(f64::from).collect(), odd)
            }
            UINT8 => {
                let raw = raw.iter().map(|&byte| f64::from(byte));
                (raw.chain(tensor.int32_data.iter().map(|&it| f64::from(it))).collect(), &[][..])
            }
            DOUBLE => {
                let (raw, odd) = raw.as_chunks::<8>();
                let raw = raw.iter().map(|bytes| f64::from_le_bytes(*bytes));
                (raw.chain(tensor.double_data.iter().copied()).collect(), odd)
            }
            other => {
                return Err(TreeError::unsupported(
                    format!("an ONNX tensor of the data type {other}"),
                    "float32 and double are supported",
                ));
            }
        };
        if odd.is_empty() {
            Ok((numbers, tensor.data_type == DOUBLE))
        } else {
            Err(malformed(format!("{name} is cut")))
        }
    }

    /// Numbers, as float32 or, under another name, as a tensor of doubles. The flag says which.
    fn numbers(&self, name: &str) -> Result<(Vec<f64>, bool), TreeError> {
        if let Some(tensor) =
            self.0.get(format!("{name}_as_tensor").as_str()).and_then(|it| it.t.as_ref())
        {
            if tensor.data_type != DOUBLE {
                return Err(malformed(format!("{name}_as_tensor does not hold doubles")));
            }
            let (raw, odd) = tensor.raw_data.as_chunks::<8>();
            if !odd.is_empty() {
                return Err(malformed(format!("{name}_as_tensor is cut")));
            }
            let mut numbers: Vec<_> = raw.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
            numbers.extend(&tensor.double_data);
            return Ok((numbers, true));
        }
        let floats = self.0.get(name).map_or(&[][..], |attribute| &attribute.floats);
        Ok((floats.iter().map(|&float| float.into()).collect(), false))
    }
}

/// `TensorProto.FLOAT`
const FLOAT: i32 = 1;

/// `TensorProto.UINT8`
const UINT8: i32 = 2;

/// `TensorProto.DOUBLE`
const DOUBLE: i32 = 11;

/// Operators beside the ensemble that do not change its numbers.
const HARMLESS: [&str; 3] = ["Cast", "Identity", "ZipMap"];

/// Reads a model.
///
/// # Errors
/// When it is malformed, or more than one tree ensemble.
pub fn read(bytes: &[u8]) -> Result<Ensemble, TreeError> {
    let model = ModelProto::decode(bytes).map_err(|error| malformed(error.to_string()))?;
    let graph = model.graph.ok_or_else(|| malformed("the model has no graph"))?;
    let mut ensembles = Vec::new();
    for node in &graph.node {
        match node.op_type.as_str() {
            "TreeEnsembleRegressor" | "TreeEnsembleClassifier" | "TreeEnsemble" => {
                ensembles.push(node);
            }
            other if HARMLESS.contains(&other) => {}
            other => {
                return Err(TreeError::unsupported(
                    format!("the ONNX operator {:?}", other.chars().take(60).collect::<String>()),
                    "a model of one TreeEnsembleRegressor, TreeEnsembleClassifier or TreeEnsemble is supported; import the model from the library's own file",
                ));
            }
        }
    }
    let [node] = ensembles.as_slice() else {
        return Err(TreeError::unsupported(
            format!("an ONNX model with {} tree ensembles", ensembles.len()),
            "one ensemble is supported",
        ));
    };
    let attributes = Attributes(node.attribute.iter().map(|it| (it.name.as_str(), it)).collect());
    let input = graph.input.first().and_then(|input| input.kind.as_ref()?.tensor_type.as_ref());
    let ensemble = Ensemble {
        origin: Origin {
            format: FORMAT.to_owned(),
            version: Some(
                format!("{} {}", model.producer_name, model.producer_version).trim().to_owned(),
            )
            .filter(|version| !version.is_empty()),
            objective: node.op_type.clone(),
        },
        features: Vec::new(),
        category_sets: Vec::new(),
        trees: Vec::new(),
        base: Vec::new(),
        weight: 1.0,
        prediction: Prediction::Value,
        labels: None,
        notes: Vec::new(),
    };
    let mut ensemble = match node.op_type.as_str() {
        "TreeEnsemble" => {
            let is_float = input.is_some_and(|input| input.elem_type == FLOAT);
            tree_ensemble::read(ensemble, &attributes, is_float)?
        }
        "TreeEnsembleClassifier" => {
            let (trees, leaves) = nodes_of(&attributes, "class")?;
            classifier(Ensemble { trees, ..ensemble }, &attributes, leaves)?
        }
        _ => {
            let (trees, leaves) = nodes_of(&attributes, "target")?;
            regressor(Ensemble { trees, ..ensemble }, &attributes, leaves)?
        }
    };
    let columns = input.and_then(|input| input.shape.as_ref()?.dim.get(1));
    let stated = columns.and_then(|columns| usize::try_from(columns.dim_value).ok()).unwrap_or(0);
    let nodes = ensemble.trees.iter().flat_map(|tree| &tree.nodes);
    let used = nodes.filter_map(|node| match node {
        Node::Split { feature, .. } => Some(*feature as usize + 1),
        _ => None,
    });
    let features = used.max().unwrap_or(0).max(stated).max(1);
    if features > MAX_FEATURES {
        return Err(TreeError::Limit(format!("{features} features")));
    }
    ensemble.features = features_named(Vec::new(), features);
    ensemble.check(FORMAT)?;
    Ok(ensemble)
}

/// What a leaf adds: tree and node, output, weight.
struct LeafWeight {
    tree: usize,
    node: usize,
    output: usize,
    weight: f64,
}

/// The trees with empty leaves, and what the leaves add.
fn nodes_of(
    attributes: &Attributes<'_>,
    leaf_prefix: &str,
) -> Result<(Vec<Tree>, Vec<LeafWeight>), TreeError> {
    let tree_ids = attributes.ints("nodes_treeids");
    let node_ids = attributes.ints("nodes_nodeids");
    let features = attributes.ints("nodes_featureids");
    let yes = attributes.ints("nodes_truenodeids");
    let no = attributes.ints("nodes_falsenodeids");
    let missing = attributes.ints("nodes_missing_value_tracks_true");
    let (values, doubles) = attributes.numbers("nodes_values")?;
    let modes = attributes.0.get("nodes_modes").map_or(&[][..], |modes| &modes.strings);
    let count = tree_ids.len();
    let complete = [node_ids.len(), features.len(), yes.len(), no.len(), values.len(), modes.len()];
    if complete.iter().any(|&length| length != count)
        || !(missing.is_empty() || missing.len() == count)
    {
        return Err(malformed("the lists of node attributes differ in length"));
    }
    let mut positions: HashMap<(i64, i64), (usize, usize)> = HashMap::new();
    let mut trees: Vec<Tree> = Vec::new();
    let mut numbers: HashMap<i64, usize> = HashMap::new();
    let mut places = Vec::with_capacity(count);
    for (&tree, &node) in tree_ids.iter().zip(node_ids) {
        let number = *numbers.entry(tree).or_insert_with(|| {
            trees.push(Tree::default());
            trees.len() - 1
        });
        let place = (number, trees[number].nodes.len());
        trees[number].nodes.push(Node::Leaf { value: 0.0, samples: 0 });
        if positions.insert((tree, node), place).is_some() {
            return Err(malformed(format!("node {node} of tree {tree} is defined twice")));
        }
        places.push(place);
    }
    let index = |tree: i64, node: i64| {
        let place = positions.get(&(tree, node)).and_then(|place| u32::try_from(place.1).ok());
        place.ok_or_else(|| malformed(format!("tree {tree} has no node {node}")))
    };
    for (position, &(tree, node)) in places.iter().enumerate() {
        let mode = modes[position].as_slice();
        if mode == b"LEAF" {
            continue;
        }
        let feature =
            u32::try_from(features[position]).map_err(|_| malformed("a feature is negative"))?;
        let (pass, fail) =
            (index(tree_ids[position], yes[position])?, index(tree_ids[position], no[position])?);
        let missing_passes = missing.get(position).is_some_and(|&flag| flag != 0);
        let value = values[position];
        #[allow(clippy::cast_possible_truncation)]
        let below = |value: f64| {
            if doubles { Test::AtMost(value.next_down()) } else { Test::RoundedBelow(value as f32) }
        };
        let at_most =
            |value: f64| if doubles { Test::AtMost(value) } else { Test::RoundedAtMost(value) };
        let (test, swapped) = match mode {
            b"BRANCH_LEQ" => (at_most(value), false),
            b"BRANCH_LT" => (below(value), false),
            b"BRANCH_GTE" => (below(value), true),
            b"BRANCH_GT" => (at_most(value), true),
            other => {
                return Err(TreeError::unsupported(
                    format!(
                        "the node mode {:?}",
                        String::from_utf8_lossy(&other[..other.len().min(40)])
                    ),
                    "Elasticsearch compares numbers only by their order",
                ));
            }
        };
        let (left, right) = if swapped { (fail, pass) } else { (pass, fail) };
        let missing = Side::left_if(missing_passes != swapped);
        trees[tree].nodes[node] = Node::Split { feature, test, missing, left, right, samples: 0 };
    }
    let list = |name: &str| attributes.ints(&format!("{leaf_prefix}_{name}"));
    let (leaf_trees, leaf_nodes, outputs) = (list("treeids"), list("nodeids"), list("ids"));
    let (weights, _) = attributes.numbers(&format!("{leaf_prefix}_weights"))?;
    if [leaf_nodes.len(), outputs.len(), weights.len()]
        .iter()
        .any(|&length| length != leaf_trees.len())
    {
        return Err(malformed("the lists of leaf attributes differ in length"));
    }
    let mut leaves = Vec::with_capacity(weights.len());
    for (position, &weight) in weights.iter().enumerate() {
        let key = (leaf_trees[position], leaf_nodes[position]);
        let &(tree, node) = positions
            .get(&key)
            .ok_or_else(|| malformed(format!("tree {} has no node {}", key.0, key.1)))?;
        let output =
            usize::try_from(outputs[position]).map_err(|_| malformed("a class is negative"))?;
        leaves.push(LeafWeight { tree, node, output, weight });
    }
    Ok((trees, leaves))
}

impl Ensemble {
    /// Adds weights to scalar leaves.
    fn fill_scalars(&mut self, leaves: &[LeafWeight]) {
        for leaf in leaves {
            if let Some(Node::Leaf { value, .. }) = self.trees[leaf.tree].nodes.get_mut(leaf.node) {
                *value += leaf.weight;
            }
        }
    }

    /// Replaces leaves by vectors, to which `add` adds the weights.
    fn fill_vectors(
        &mut self,
        outputs: usize,
        leaves: &[LeafWeight],
        start: &[f64],
        add: impl Fn(&mut [f64], &LeafWeight),
    ) -> Result<(), TreeError> {
        for tree in &mut self.trees {
            for node in &mut tree.nodes {
                if let Node::Leaf { samples, .. } = *node {
                    let vector = u32::try_from(tree.vectors.len() / outputs)
                        .map_err(|_| TreeError::Limit("too many leaves".to_owned()))?;
                    tree.vectors.extend_from_slice(start);
                    *node = Node::VectorLeaf { vector, samples };
                }
            }
        }
        for leaf in leaves {
            let tree = &mut self.trees[leaf.tree];
            if let Some(&Node::VectorLeaf { vector, .. }) = tree.nodes.get(leaf.node) {
                let start = vector as usize * outputs;
                add(&mut tree.vectors[start..start + outputs], leaf);
            }
        }
        Ok(())
    }
}

fn regressor(
    mut ensemble: Ensemble,
    attributes: &Attributes<'_>,
    leaves: Vec<LeafWeight>,
) -> Result<Ensemble, TreeError> {
    if leaves.iter().any(|leaf| leaf.output != 0) {
        return Err(TreeError::unsupported(
            "an ONNX model with several targets",
            "Elasticsearch serves one output",
        ));
    }
    let (base, _) = attributes.numbers("base_values")?;
    ensemble.base = vec![base.first().copied().unwrap_or(0.0)];
    ensemble.prediction = match attributes.text("post_transform").as_str() {
        "" | "NONE" => Prediction::Value,
        "LOGISTIC" => Prediction::LogisticValue,
        other => return Err(transform(other)),
    };
    ensemble.weight = match attributes.text("aggregate_function").as_str() {
        "" | "SUM" => 1.0,
        #[allow(clippy::cast_precision_loss)]
        "AVERAGE" => 1.0 / ensemble.trees.len().max(1) as f64,
        other => {
            return Err(TreeError::unsupported(
                format!("the aggregate function {other:?}"),
                "Elasticsearch adds or averages trees",
            ));
        }
    };
    ensemble.fill_scalars(&leaves);
    Ok(ensemble)
}

fn transform(name: &str) -> TreeError {
    TreeError::unsupported(
        format!("the post transform {name:?}"),
        "Elasticsearch cannot compute it",
    )
}

fn classifier(
    mut ensemble: Ensemble,
    attributes: &Attributes<'_>,
    leaves: Vec<LeafWeight>,
) -> Result<Ensemble, TreeError> {
    let texts = attributes.0.get("classlabels_strings").map_or(&[][..], |labels| &labels.strings);
    #[allow(clippy::cast_precision_loss)]
    let labels: Vec<_> = if texts.is_empty() {
        attributes
            .ints("classlabels_int64s")
            .iter()
            .map(|&label| Label::Number(label as f64))
            .collect()
    } else {
        texts.iter().map(|label| Label::Text(String::from_utf8_lossy(label).into_owned())).collect()
    };
    let classes = labels.len();
    if !(2..=MAX_CLASSES).contains(&classes) {
        return Err(malformed(format!("{classes} classes")));
    }
    if leaves.iter().any(|leaf| leaf.output >= classes) {
        return Err(malformed("a leaf belongs to a class that does not exist"));
    }
    let (base, _) = attributes.numbers("base_values")?;
    let first = leaves.first().map_or(0, |leaf| leaf.output);
    let single = classes == 2 && leaves.iter().all(|leaf| leaf.output == first);
    let post = attributes.text("post_transform");
    ensemble.labels = Some(labels);
    if single {
        // The one score is that of the second label, whatever the class in the file.
        let base = base.last().copied().unwrap_or(0.0);
        match post.as_str() {
            "LOGISTIC" => {
                ensemble.prediction = Prediction::Logistic;
                ensemble.base = vec![base];
                ensemble.fill_scalars(&leaves);
            }
            "" | "NONE" if leaves.iter().all(|leaf| leaf.weight >= 0.0) => {
                // The sum is the probability of the second class.
                ensemble.prediction = Prediction::Mean;
                let one = ensemble.trees.len() == 1 && base == 0.0;
                ensemble.base = if one { vec![0.0, 0.0] } else { vec![1.0 - base, base] };
                let start = if one { [1.0, 0.0] } else { [0.0, 0.0] };
                ensemble.fill_vectors(2, &leaves, &start, |vector, leaf| {
                    vector[0] -= leaf.weight;
                    vector[1] += leaf.weight;
                })?;
            }
            "" | "NONE" => {
                ensemble.prediction = Prediction::Hinge;
                ensemble.base = vec![base];
                ensemble.fill_scalars(&leaves);
            }
            other => return Err(transform(other)),
        }
        return Ok(ensemble);
    }
    ensemble.prediction = match post.as_str() {
        "SOFTMAX" => Prediction::Softmax,
        "LOGISTIC" => Prediction::OneVersusRest,
        "" | "NONE" => Prediction::Mean,
        other => return Err(transform(other)),
    };
    ensemble.base = match base.len() {
        0 => vec![0.0; classes],
        length if length == classes => base,
        length => return Err(malformed(format!("{length} base values for {classes} classes"))),
    };
    let start = vec![0.0; classes];
    ensemble.fill_vectors(classes, &leaves, &start, |vector, leaf| {
        vector[leaf.output] += leaf.weight
    })?;
    Ok(ensemble)
}
