//! Writes the trees of an ensemble, breadth first, and what surrounds them.

use std::collections::VecDeque;

use super::fields::Fields;
use super::json_output::JsonOutput;
use super::plan::{LeafForm, Plan};
use super::{DefinitionOptions, Target};
use crate::trees::TreeError;
use crate::trees::comparison::{Next, steps};
use crate::trees::ensemble::{Ensemble, MAX_NODES, Node, Side, Test, Totals, Tree};

/// Writes the definition and returns its totals.
pub(super) fn write(
    ensemble: &Ensemble,
    options: &DefinitionOptions,
    plan: &Plan,
    fields: &Fields,
    output: &mut JsonOutput,
) -> Result<Totals, TreeError> {
    output.byte(b'{');
    if !fields.preprocessors.is_empty() {
        output.text("\"preprocessors\":");
        output.json(&fields.preprocessors)?;
        output.byte(b',');
    }
    output.text("\"trained_model\":{\"ensemble\":{\"trained_models\":[");
    let mut totals = Totals::default();
    let mut writer = TreeWriter {
        ensemble,
        plan,
        fields,
        samples: options.sample_counts,
        local: vec![u32::MAX; fields.seen.len()],
        names: Vec::new(),
        queue: VecDeque::new(),
    };
    for tree in &ensemble.trees {
        if totals.trees > 0 {
            output.byte(b',');
        }
        let budget = MAX_NODES - totals.nodes;
        let shape = writer.tree(tree, budget, output)?;
        totals.trees += 1;
        totals.nodes += shape.nodes;
        totals.depth = totals.depth.max(shape.depth);
    }
    let weighted = ensemble.weight != 1.0;
    let based = ensemble.trees.is_empty() || base_matters(ensemble, plan);
    if based {
        if totals.trees > 0 {
            output.byte(b',');
        }
        writer.base(output);
        totals.trees += 1;
        totals.nodes += 1;
    }
    output.text("],\"aggregate_output\":{\"");
    output.text(plan.aggregation);
    output.text("\":{");
    if weighted {
        output.text("\"weights\":[");
        for index in 0..ensemble.trees.len() {
            if index > 0 {
                output.byte(b',');
            }
            output.number(ensemble.weight);
        }
        if based {
            output.text(if ensemble.trees.is_empty() { "1" } else { ",1" });
        }
        output.byte(b']');
    }
    output.text("}},\"target_type\":\"");
    output.text(if plan.target == Target::Classification {
        "classification"
    } else {
        "regression"
    });
    output.byte(b'"');
    if plan.target == Target::Classification {
        output.text(",\"classification_labels\":");
        output.json(&plan.labels)?;
        if let Some(weights) = &options.weights {
            output.text(",\"classification_weights\":[");
            for (index, weight) in weights.iter().enumerate() {
                if index > 0 {
                    output.byte(b',');
                }
                output.number(*weight);
            }
            output.byte(b']');
        }
    }
    output.text("}}}");
    Ok(totals)
}

/// Whether the constants change the prediction.
fn base_matters(ensemble: &Ensemble, plan: &Plan) -> bool {
    match plan.form {
        LeafForm::Logarithm => false,
        LeafForm::Component(output) => ensemble.base[output] != 0.0,
        LeafForm::Scalar | LeafForm::Vector => ensemble.base.iter().any(|base| *base != 0.0),
    }
}

/// A node still to be written: one of the ensemble, or a further step of it.
#[derive(Clone, Copy)]
struct Pending {
    node: u32,
    step: usize,
    depth: usize,
}

struct TreeWriter<'a> {
    ensemble: &'a Ensemble,
    plan: &'a Plan,
    fields: &'a Fields,
    samples: bool,
    /// For each field the index within the current tree, or `u32::MAX`.
    local: Vec<u32>,
    /// The fields of the current tree.
    names: Vec<usize>,
    /// Nodes in the order in which they are written: breadth first.
    queue: VecDeque<Pending>,
}

impl TreeWriter<'_> {
    fn tree(
        &mut self,
        tree: &Tree,
        budget: usize,
        output: &mut JsonOutput,
    ) -> Result<Totals, TreeError> {
        output.text("{\"tree\":{\"tree_structure\":[");
        self.queue.clear();
        self.queue.push_back(Pending { node: 0, step: 0, depth: 0 });
        // Nodes that have been put in the queue so far: the position of the next child in the array.
        let mut queued: usize = 1;
        let mut written = 0;
        let mut deepest = 0;
        while let Some(pending) = self.queue.pop_front() {
            if queued > budget {
                return Err(TreeError::Limit(format!(
                    "its definition would have more than {MAX_NODES} nodes"
                )));
            }
            if written > 0 {
                output.byte(b',');
            }
            written += 1;
            deepest = deepest.max(pending.depth);
            self.node(tree, pending, &mut queued, output)?;
        }
        output.text("],\"feature_names\":[");
        for (index, &field) in self.names.iter().enumerate() {
            if index > 0 {
                output.byte(b',');
            }
            output.json(&self.fields.seen[field])?;
            self.local[field] = u32::MAX;
        }
        self.names.clear();
        output.byte(b']');
        self.target_type(output);
        output.text("}}");
        Ok(Totals { trees: 1, nodes: written, depth: deepest })
    }

    fn node(
        &mut self,
        tree: &Tree,
        pending: Pending,
        queued: &mut usize,
        output: &mut JsonOutput,
    ) -> Result<(), TreeError> {
        output.byte(b'{');
        let samples = match tree.nodes[pending.node as usize] {
            Node::Leaf { value, samples } => {
                self.leaf(tree, Some(value), &[], output);
                samples
            }
            Node::VectorLeaf { vector, samples } => {
                self.leaf(tree, None, tree.vector(vector, self.ensemble.outputs()), output);
                samples
            }
            Node::Split { feature, test, missing, left, right, samples } => {
                let field = match test {
                    Test::In(set) => self.ensemble.features.len() + set as usize,
                    _ => feature as usize,
                };
                let steps = steps(test, missing);
                let step = steps.as_slice()[pending.step];
                let depth = pending.depth + 1;
                let child = |next| match next {
                    Next::Child(Side::Left) => Pending { node: left, step: 0, depth },
                    Next::Child(Side::Right) => Pending { node: right, step: 0, depth },
                    Next::Step(step) => Pending { node: pending.node, step, depth },
                };
                if step.comparison.strict {
                    output.text("\"decision_type\":\"lt\",");
                }
                output.text("\"threshold\":");
                output.number(step.comparison.threshold);
                output.text(",\"split_feature\":");
                output.integer(self.local(field));
                output.text(",\"left_child\":");
                output.integer(*queued as u64);
                output.text(",\"right_child\":");
                output.integer(*queued as u64 + 1);
                if step.missing_yes {
                    output.text(",\"default_left\":true");
                }
                *queued += 2;
                self.queue.push_back(child(step.yes));
                self.queue.push_back(child(step.no));
                samples
            }
        };
        if self.samples {
            if samples == 0 {
                return Err(TreeError::Options(
                    "the model file has no sample counts, which feature importance needs"
                        .to_owned(),
                ));
            }
            output.text(",\"number_samples\":");
            output.integer(samples);
        }
        output.byte(b'}');
        Ok(())
    }

    /// The index of a field within the current tree.
    fn local(&mut self, field: usize) -> u64 {
        if self.local[field] == u32::MAX {
            // There are at most as many fields as MAX_FEATURES and MAX_NODES together.
            #[allow(clippy::cast_possible_truncation)]
            let index = self.names.len() as u32;
            self.local[field] = index;
            self.names.push(field);
        }
        self.local[field].into()
    }

    fn leaf(&self, tree: &Tree, scalar: Option<f64>, vector: &[f64], output: &mut JsonOutput) {
        let own = tree.output as usize;
        let component = |output: usize| match scalar {
            Some(value) if output == own => value,
            Some(_) => 0.0,
            None => vector.get(output).copied().unwrap_or_default(),
        };
        self.values(component, output);
    }

    /// A tree that is a lone leaf with the constants.
    fn base(&self, output: &mut JsonOutput) {
        output.text("{\"tree\":{\"tree_structure\":[{");
        self.values(|index| self.ensemble.base[index], output);
        if self.samples {
            output.text(",\"number_samples\":1");
        }
        output.text("}],\"feature_names\":[]");
        self.target_type(output);
        output.text("}}");
    }

    fn values(&self, component: impl Fn(usize) -> f64, output: &mut JsonOutput) {
        output.text("\"leaf_value\":");
        match self.plan.form {
            LeafForm::Scalar => output.number(component(0)),
            LeafForm::Component(class) => output.number(component(class)),
            LeafForm::Vector | LeafForm::Logarithm => {
                output.byte(b'[');
                for index in 0..self.ensemble.outputs() {
                    if index > 0 {
                        output.byte(b',');
                    }
                    let value = component(index);
                    output.number(if self.plan.form == LeafForm::Vector {
                        value
                    } else {
                        logarithm(value)
                    });
                }
                output.byte(b']');
            }
        }
    }

    fn target_type(&self, output: &mut JsonOutput) {
        if matches!(self.plan.form, LeafForm::Vector | LeafForm::Logarithm) {
            output.text(",\"target_type\":\"classification\"");
        }
    }
}

/// The logarithm of a fraction. Softmax gives the fraction back; for 0 it gives exactly 0 from this finite number.
fn logarithm(fraction: f64) -> f64 {
    if fraction > 0.0 { fraction.ln() } else { -1e7 }
}
