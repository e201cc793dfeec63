//! Search for the smallest quantized model that agrees with the original.

use std::sync::{Mutex, PoisonError};

use tch::{Kind, Tensor};

use super::quantization::{Layers, LinearForm, TableForm};
use super::{Conversion, ConversionError, Quantization, Quantize};
use crate::tasks::agreement::Row;
use crate::torchscript::{OneThread, TorchError, in_parallel};

/// Number of calibration texts on which the error of each layer is measured.
const TEXTS: usize = 8;

/// A change that makes a quantized model more exact: the number of a linear layer, and its form.
type Step = (usize, LinearForm);

impl Conversion {
    /// The forms of the linear layers with the fewest changes to `forms` that reach the target. The layers change in the order of the
    /// error that each causes if only this layer is quantized: first, more of their largest inputs are multiplied in float32, then they
    /// become float32. The number of changes is found by bisection, so one change less does not reach the target.
    ///
    /// # Errors
    /// [`ConversionError::TargetAgreement`] if the target is not reached with all linear layers in float32.
    pub(super) fn search(
        &self,
        layers: &Layers,
        forms: Vec<LinearForm>,
        observed: &Tensor,
        quantize: &Quantize,
    ) -> Result<Vec<LinearForm>, ConversionError> {
        let target = quantize.target();
        let references = self.reference_outputs(quantize)?;
        let measured = |forms: &[LinearForm]| -> Result<Quantization, ConversionError> {
            let mut module = self.trace_float()?;
            let done = layers.replace(&mut module, Some(TableForm::Int8), forms, Some(observed))?;
            let report = self.quantization_report(quantize.scheme, done, &module, &references)?;
            tracing::info!("{}: {report}", description(forms));
            Ok(report)
        };
        let first = measured(&forms)?;
        if first.reaches(target) {
            return Ok(forms);
        }
        let steps = steps(&forms, &self.errors(layers, &forms, observed, quantize)?);
        let after = |count: usize| {
            let mut changed = forms.clone();
            for (layer, form) in steps.iter().take(count) {
                if let Some(changed) = changed.get_mut(*layer) {
                    *changed = *form;
                }
            }
            changed
        };
        let last = if steps.is_empty() { first } else { measured(&after(steps.len()))? };
        if !last.reaches(target) {
            return Err(ConversionError::TargetAgreement { report: Box::new(last), target });
        }
        let (mut fails, mut reaches) = (0, steps.len());
        while reaches - fails > 1 {
            let middle = fails + (reaches - fails) / 2;
            if measured(&after(middle))?.reaches(target) {
                reaches = middle
            } else {
                fails = middle
            }
        }
        let chosen = after(reaches);
        tracing::info!(
            "the target {target} needs {reaches} of {} changes: {}",
            steps.len(),
            description(&chosen)
        );
        Ok(chosen)
    }

    /// The error of the output, relative to its length, if only one linear layer has its form, for each linear layer.
    fn errors(
        &self,
        layers: &Layers,
        forms: &[LinearForm],
        observed: &Tensor,
        quantize: &Quantize,
    ) -> Result<Vec<f64>, ConversionError> {
        let rows = self.task_rows(quantize.calibration_texts())?;
        let every = rows.len().div_ceil(TEXTS).max(1);
        let reference = |row: &Row| -> Result<Mutex<_>, ConversionError> {
            // One thread, because the results of several depend on their number.
            let _one = OneThread::begin();
            let inputs = self.inputs(&[&row.ids])?;
            let output = self.forward(&inputs)?;
            Ok(Mutex::new((inputs, output)))
        };
        let samples = rows.iter().step_by(every).map(reference).collect::<Result<Vec<_>, _>>()?;
        let alone = |at: usize| -> Result<f64, ConversionError> {
            let mut only = vec![LinearForm::Float; forms.len()];
            let chosen = only.get_mut(at).zip(forms.get(at));
            if let Some((only, form)) = chosen {
                *only = *form;
            }
            let mut module = self.trace_float()?;
            layers.replace(&mut module, None, &only, Some(observed))?;
            let squares = in_parallel(&samples, |sample| -> Result<_, TorchError> {
                let sample = sample.lock().unwrap_or_else(PoisonError::into_inner);
                let (inputs, reference) = &*sample;
                let off = module.forward_plainly(inputs)?.f_sub(reference)?;
                Ok((square(&off)?, square(reference)?))
            })?;
            let (errors, lengths): (Vec<f64>, Vec<f64>) = squares.into_iter().unzip();
            Ok(errors.iter().sum::<f64>() / lengths.iter().sum::<f64>())
        };
        (0..forms.len()).map(alone).collect()
    }
}

/// Sum of the squares.
fn square(tensor: &Tensor) -> Result<f64, tch::TchError> {
    f64::try_from(&tensor.f_mul(tensor)?.f_sum(Kind::Double)?)
}

/// All changes to `forms`, by the error of each layer.
fn steps(forms: &[LinearForm], errors: &[f64]) -> Vec<Step> {
    let mut order: Vec<usize> = (0..forms.len().min(errors.len())).collect();
    let error = |layer: &usize| errors.get(*layer).copied().unwrap_or_default();
    order.sort_by(|one, other| error(other).total_cmp(&error(one)));
    let of = |form: LinearForm, from: &'static [LinearForm]| {
        let changes = |layer: &&usize| forms.get(**layer).is_some_and(|form| from.contains(form));
        order.iter().filter(changes).map(move |layer| (*layer, form)).collect::<Vec<_>>()
    };
    let mut steps = of(LinearForm::ManyFloats, &[LinearForm::FewFloats]);
    steps.extend(of(LinearForm::Float, &[LinearForm::FewFloats]));
    steps
}

/// The forms of the linear layers for the user, with the numbers of the layers from 1.
fn description(forms: &[LinearForm]) -> String {
    let numbers = |wanted: LinearForm| {
        let chosen = forms.iter().zip(1..).filter(|(form, _)| **form == wanted);
        let numbers: Vec<String> =
            chosen.map(|(_, number): (_, usize)| number.to_string()).collect();
        match numbers.len() {
            0 => "none".to_owned(),
            all if all == forms.len() => "all".to_owned(),
            _ => numbers.join(" "),
        }
    };
    format!(
        "linear layers with more inputs in float32: {}; in float32: {}",
        numbers(LinearForm::ManyFloats),
        numbers(LinearForm::Float)
    )
}

#[cfg(test)]
mod tests {
    use super::LinearForm::{FewFloats, Float, ManyFloats};
    use super::*;

    #[test]
    fn layers_with_the_largest_errors_change_first() {
        let forms = [FewFloats, Float, FewFloats];
        let found = steps(&forms, &[0.1, 0., f64::NAN]);
        assert_eq!(found, [(2, ManyFloats), (0, ManyFloats), (2, Float), (0, Float)]);
        assert_eq!(steps(&[Float], &[0.]), []);
    }

    #[test]
    fn description_lists_layers_by_number() {
        let expected = "linear layers with more inputs in float32: 2; in float32: 3";
        assert_eq!(description(&[FewFloats, ManyFloats, Float, FewFloats]), expected);
        let expected = "linear layers with more inputs in float32: all; in float32: none";
        assert_eq!(description(&[ManyFloats; 2]), expected);
    }
}
