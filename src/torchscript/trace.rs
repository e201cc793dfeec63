//! Shapes that stay symbolic in a traced graph.
//!
//! `Tensor::size` returns plain integers, which become constants of a trace. [`Size`] is an integer that a trace computes from a tensor,
//! and the functions of this module accept it in shapes. Outside of a trace they compute the same with plain integers.

use std::ffi::CStr;

use tch::{Kind, TchError, Tensor};

use super::{TorchError, ffi};

/// A size of a tensor: an integer, and a value of the graph while tracing.
#[derive(Debug)]
pub struct Size {
    value: i64,
    recorded: Option<Tensor>,
}

impl Size {
    /// The size of `axis` of `tensor`.
    ///
    /// # Errors
    /// If the tensor has no such axis.
    pub fn of(tensor: &Tensor, axis: usize) -> Result<Self, TorchError> {
        let value = *tensor
            .size()
            .get(axis)
            .ok_or_else(|| TorchError::Native(format!("no axis {axis} in {:?}", tensor.size())))?;
        let recorded =
            if ffi::is_tracing() { Some(ffi::size_of(tensor, axis as i64)?) } else { None };
        Ok(Self { value, recorded })
    }

    /// This size times `factor` plus `offset`.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn affine(&self, factor: i64, offset: i64) -> Result<Self, TorchError> {
        let recorded = match &self.recorded {
            // A trace would also record a product with 1.
            Some(size) if factor == 1 => Some(size.f_add_scalar(offset)?),
            Some(size) => Some(size.f_mul_scalar(factor)?.f_add_scalar(offset)?),
            None => None,
        };
        Ok(Self { value: self.value * factor + offset, recorded })
    }

    /// This size plus `other`.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn plus(&self, other: &Self) -> Result<Self, TorchError> {
        let recorded = self.record(other, Tensor::f_add)?;
        Ok(Self { value: self.value + other.value, recorded })
    }

    /// This size times `other`.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn times(&self, other: &Self) -> Result<Self, TorchError> {
        let recorded = self.record(other, Tensor::f_mul)?;
        Ok(Self { value: self.value * other.value, recorded })
    }

    /// This size divided by `divisor`, rounded down. The divisor is at least 1.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn floor_divide(&self, divisor: &Self) -> Result<Self, TorchError> {
        let recorded = self.record(divisor, Tensor::f_floor_divide)?;
        Ok(Self { value: self.value.div_euclid(divisor.value), recorded })
    }

    /// This size divided by the constant `divisor`, which is at least 1, rounded down.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn floor_divide_by(&self, divisor: i64) -> Result<Self, TorchError> {
        let recorded = self.recorded.as_ref().map(|size| size.f_floor_divide_scalar(divisor));
        Ok(Self { value: self.value.div_euclid(divisor), recorded: recorded.transpose()? })
    }

    /// This size, or the nearest number from `least` to `most`.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn clamp(&self, least: i64, most: i64) -> Result<Self, TorchError> {
        let recorded = self.recorded.as_ref().map(|size| size.f_clamp(least, most));
        Ok(Self { value: self.value.clamp(least, most), recorded: recorded.transpose()? })
    }

    /// This size as an int64 tensor without axes.
    pub fn tensor(&self) -> Tensor {
        self.recorded.as_ref().map_or_else(|| Tensor::from(self.value), Tensor::shallow_clone)
    }

    /// Records an operation on two sizes.
    fn record(
        &self,
        other: &Self,
        operation: impl Fn(&Tensor, &Tensor) -> Result<Tensor, TchError>,
    ) -> Result<Option<Tensor>, TorchError> {
        let recorded = self.recorded.as_ref().or(other.recorded.as_ref());
        Ok(recorded.map(|_| operation(&self.tensor(), &other.tensor())).transpose()?)
    }
}

/// One element of a shape.
#[derive(Debug, Clone, Copy)]
pub enum Dim<'a> {
    /// A constant; -1 is inferred.
    Fixed(i64),
    /// A size of the input.
    Of(&'a Size),
}

impl From<i64> for Dim<'_> {
    fn from(n: i64) -> Self {
        Self::Fixed(n)
    }
}

impl<'a> From<&'a Size> for Dim<'a> {
    fn from(size: &'a Size) -> Self {
        Self::Of(size)
    }
}

/// Stashes the recorded sizes of `shape` for the next operation and returns the plain integers.
fn stash(argument: &CStr, shape: &[Dim<'_>]) -> Result<Vec<i64>, TorchError> {
    let mut plain = Vec::with_capacity(shape.len());
    for (i, dim) in shape.iter().enumerate() {
        plain.push(match dim {
            Dim::Fixed(n) => *n,
            Dim::Of(size) => {
                if let Some(recorded) = &size.recorded {
                    ffi::stash_size(argument, shape.len(), i, recorded)?;
                }
                size.value
            }
        });
    }
    Ok(plain)
}

/// Stashes a recorded size as the scalar `argument` of the next operation and returns the plain integer.
fn stash_scalar<'a>(argument: &CStr, size: impl Into<Dim<'a>>) -> Result<i64, TorchError> {
    match size.into() {
        Dim::Fixed(n) => Ok(n),
        Dim::Of(size) => {
            if let Some(recorded) = &size.recorded {
                ffi::stash_scalar(argument, recorded)?;
            }
            Ok(size.value)
        }
    }
}

/// `tensor.view(shape)`.
///
/// # Errors
/// If the shape does not match.
pub fn view(tensor: &Tensor, shape: &[Dim<'_>]) -> Result<Tensor, TorchError> {
    let shape = stash(c"size", shape)?;
    Ok(tensor.f_view(shape.as_slice())?)
}

/// `tensor.reshape(shape)`: a view if the layout allows it, otherwise a copy.
///
/// # Errors
/// If the shape does not match.
pub fn reshape(tensor: &Tensor, shape: &[Dim<'_>]) -> Result<Tensor, TorchError> {
    let shape = stash(c"shape", shape)?;
    Ok(tensor.f_reshape(shape.as_slice())?)
}

/// `tensor.expand(shape)`: a view that repeats axes of size 1.
///
/// # Errors
/// If the shape does not match.
pub fn expand(tensor: &Tensor, shape: &[Dim<'_>]) -> Result<Tensor, TorchError> {
    let shape = stash(c"size", shape)?;
    Ok(tensor.f_expand(shape.as_slice(), false)?)
}

/// `torch.full(shape, value)`, float32.
///
/// # Errors
/// Errors of libtorch.
pub fn full(shape: &[Dim<'_>], value: f64) -> Result<Tensor, TorchError> {
    let shape = stash(c"size", shape)?;
    Ok(Tensor::f_full(shape.as_slice(), value, (Kind::Float, tch::Device::Cpu))?)
}

/// The first `end` entries of `tensor` along `axis`.
///
/// # Errors
/// If the tensor has no such axis.
pub fn slice(tensor: &Tensor, axis: i64, end: &Size) -> Result<Tensor, TorchError> {
    slice_between(tensor, axis, 0, end)
}

/// The entries `start` to `end` (exclusive) of `tensor` along `axis`; negative values count from the end.
///
/// # Errors
/// If the tensor has no such axis.
pub fn slice_between<'a>(
    tensor: &Tensor,
    axis: i64,
    start: impl Into<Dim<'a>>,
    end: impl Into<Dim<'a>>,
) -> Result<Tensor, TorchError> {
    let (start, end) = (stash_scalar(c"start", start)?, stash_scalar(c"end", end)?);
    Ok(tensor.f_slice(axis, start, end, 1)?)
}

/// The integers 0 to `end` (exclusive), int64.
///
/// # Errors
/// Errors of libtorch.
pub fn arange(end: &Size) -> Result<Tensor, TorchError> {
    let end = stash_scalar(c"end", end)?;
    Ok(Tensor::f_arange(end, (Kind::Int64, tch::Device::Cpu))?)
}

#[cfg(test)]
mod tests {
    use super::super::Module;
    use super::*;

    #[test]
    fn traced_graph_accepts_other_sizes() {
        let forward = |inputs: &[Tensor]| -> Result<Tensor, TorchError> {
            let (batch, tokens) = (Size::of(&inputs[0], 0)?, Size::of(&inputs[0], 1)?);
            let table = Tensor::arange(64, (Kind::Float, tch::Device::Cpu));
            let row = view(&slice(&table, 0, &tokens)?, &[1.into(), (&tokens).into(), 1.into()])?;
            let counted = view(&arange(&tokens)?, &[1.into(), (-1).into(), 1.into()])?;
            let ids = view(&inputs[0], &[(&batch).into(), (&tokens).into(), 1.into()])?;
            let (begin, past) = (tokens.affine(-1, 64)?, tokens.affine(1, 0)?.affine(2, -1)?);
            let last = slice_between(&table, 0, &begin, 64)?;
            let wide = expand(&last.f_unsqueeze(0)?, &[(&past).into(), (&tokens).into()])?;
            let wide = view(
                &wide.f_sum_dim_intlist([0i64].as_slice(), false, None)?,
                &[1.into(), (-1).into(), 1.into()],
            )?;
            let filled = full(&[(&tokens).into(), 1.into()], 2.)?;
            let parts = tokens.floor_divide_by(3)?.clamp(1, 9)?;
            let part = tokens.plus(&parts)?.affine(1, -1)?.floor_divide(&parts)?;
            let grid = view(&arange(&parts.times(&part)?)?, &[(&parts).into(), (&part).into()])?;
            let grid = grid.f_mul(&part.tensor())?.f_sum(Kind::Int64)?;
            let sum = ids.f_add(&row)?.f_add(&counted)?.f_add(&wide)?.f_add(&filled)?;
            let sum = sum.f_add(&grid)?;
            reshape(&sum.f_transpose(1, 2)?, &[(&batch).into(), (-1).into()])
        };
        let example = [Tensor::ones([1, 5], (Kind::Int64, tch::Device::Cpu))];
        let module = Module::trace(&example, forward).unwrap();
        for (batch, tokens) in [(1, 1), (1, 5), (3, 7), (2, 64)] {
            let input = [Tensor::ones([batch, tokens], (Kind::Int64, tch::Device::Cpu))];
            assert_eq!(module.forward(&input).unwrap(), forward(&input).unwrap());
        }
        let saved = |module: &Module| {
            let mut bytes = Vec::new();
            module.save(&mut bytes).unwrap();
            bytes
        };
        assert_eq!(saved(&module), saved(&Module::trace(&example, forward).unwrap()));
    }

    #[test]
    fn trace_after_a_failed_trace_succeeds() {
        let example = [Tensor::ones([2, 2], (Kind::Float, tch::Device::Cpu))];
        let failed = Module::trace(&example, |inputs| -> Result<Tensor, TorchError> {
            Ok(inputs[0].f_view([3])?)
        });
        assert!(failed.is_err());
        assert!(
            Module::trace(&example, |inputs| -> Result<Tensor, TorchError> {
                Ok(inputs[0].f_relu()?)
            })
            .is_ok()
        );
    }
}
