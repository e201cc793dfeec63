//! Activation functions, computed with operations that Elasticsearch accepts.

use std::f64::consts::{E, FRAC_1_SQRT_2};

use serde::Deserialize;
use tch::Tensor;

use super::weights::Weights;
use crate::torchscript::TorchError;

/// An activation function, with its name in `config.json` (`ACT2FN` in Transformers), computed with operations that Elasticsearch
/// accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Gaussian error linear unit.
    #[serde(alias = "gelu_python")]
    Gelu,
    /// Gaussian error linear unit, approximated with tanh.
    #[serde(alias = "gelu_fast", alias = "gelu_pytorch_tanh", alias = "gelu_python_tanh")]
    #[serde(alias = "gelu_accurate")]
    GeluNew,
    /// gelu, clipped to [-10, 10].
    #[serde(rename = "gelu_10")]
    Gelu10,
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
    /// The cumulative distribution of a normal distribution with mean 0.707107 and deviation 0.282095.
    Laplace,
    /// `x` above zero, `e^x - 1` below.
    #[serde(skip)]
    Elu,
    /// `x / 6 + 1/2`, clipped to [0, 1].
    #[serde(skip)]
    Hardsigmoid,
    /// `x` times its hardsigmoid.
    #[serde(skip)]
    Hardswish,
    /// `x`, clipped to [-1, 1].
    #[serde(skip)]
    Hardtanh,
    /// Rectified linear unit with slope 0.01 below zero.
    LeakyRelu,
    /// Identity.
    #[serde(alias = "identity")]
    Linear,
    /// `x * tanh(softplus(x))`.
    Mish,
    /// Rectified linear unit with a learned slope below zero.
    Prelu,
    /// Rectified linear unit.
    Relu,
    /// relu, squared.
    Relu2,
    /// relu, clipped to [0, 6].
    Relu6,
    /// Elu with the scales of Klambauer et al. 2017, arXiv:1706.02515.
    #[serde(skip)]
    Selu,
    /// Logistic function.
    Sigmoid,
    /// `x * sigmoid(x)`.
    #[serde(alias = "swish")]
    Silu,
    /// `log(1 + e^x)`.
    #[serde(skip)]
    Softplus,
    /// `x / (1 + |x|)`.
    #[serde(skip)]
    Softsign,
    /// Hyperbolic tangent.
    Tanh,
}

impl Activation {
    /// The activation that a `torch.nn` class computes with its default arguments, by its class name.
    #[must_use]
    pub fn of_torch_class(name: &str) -> Option<Self> {
        Some(match name {
            "CELU" | "ELU" => Self::Elu,
            "GELU" => Self::Gelu,
            "Hardsigmoid" => Self::Hardsigmoid,
            "Hardswish" => Self::Hardswish,
            "Hardtanh" => Self::Hardtanh,
            "Identity" => Self::Linear,
            "LeakyReLU" => Self::LeakyRelu,
            "Mish" => Self::Mish,
            "ReLU" => Self::Relu,
            "ReLU6" => Self::Relu6,
            "SELU" => Self::Selu,
            "SiLU" => Self::Silu,
            "Sigmoid" => Self::Sigmoid,
            "Softplus" => Self::Softplus,
            "Softsign" => Self::Softsign,
            "Tanh" => Self::Tanh,
            _ => return None,
        })
    }

    /// Applies the activation to every element.
    ///
    /// # Errors
    /// Errors of libtorch, and an error for prelu, whose slope is a weight ([`ActivationLayer`]).
    pub fn forward(self, x: &Tensor) -> Result<Tensor, TorchError> {
        Ok(match self {
            Self::Gelu => x.f_gelu("none")?,
            Self::GeluNew => x.f_gelu("tanh")?,
            Self::Gelu10 => x.f_gelu("none")?.f_clamp(-10., 10.)?,
            // Elasticsearch does not accept sigmoid, but it accepts silu(y) = y * sigmoid(y).
            Self::QuickGelu => x.f_mul_scalar(1.702)?.f_silu()?.f_div_scalar(1.702)?,
            Self::Laplace => {
                // Elasticsearch does not accept erf. gelu(y) / y is the cumulative normal distribution, which is 1/2 at zero.
                let y = x.f_sub_scalar(FRAC_1_SQRT_2)?.f_div_scalar(0.282095)?;
                let phi = y.f_gelu("none")?.f_div(&y)?;
                phi.f_masked_fill(&y.f_eq(0.)?, 0.5)?
            }
            Self::Elu => elu(x)?,
            Self::Hardsigmoid => hardsigmoid(x)?,
            Self::Hardswish => x.f_mul(&hardsigmoid(x)?)?,
            Self::Hardtanh => x.f_clamp(-1., 1.)?,
            Self::LeakyRelu => x.f_relu()?.f_sub(&below_zero(x)?.f_mul_scalar(0.01)?)?,
            Self::Linear => x.shallow_clone(),
            Self::Mish => {
                // tanh(log(1 + n)) = (n² + 2n) / (n² + 2n + 2) with n = e^x; beyond x = 20 it is 1 in float32.
                let n = Tensor::f_pow_scalar(E, &x.f_clamp(-100., 20.)?)?;
                let m = n.f_mul(&n.f_add_scalar(2.)?)?;
                x.f_mul(&m.f_div(&m.f_add_scalar(2.)?)?)?
            }
            Self::Prelu => {
                return Err(TorchError::Native(
                    "prelu has no slope in this part of the model".into(),
                ));
            }
            Self::Relu => x.f_relu()?,
            Self::Relu2 => x.f_relu()?.f_pow_tensor_scalar(2)?,
            Self::Relu6 => x.f_clamp(0., 6.)?,
            Self::Selu => {
                const SCALE: f64 = 1.050_700_987_355_480_5;
                const ALPHA: f64 = 1.673_263_242_354_377_2;
                let below = elu(&below_zero(x)?.f_neg()?)?.f_mul_scalar(ALPHA)?;
                x.f_relu()?.f_add(&below)?.f_mul_scalar(SCALE)?
            }
            Self::Sigmoid => x.f_mul_scalar(0.5)?.f_tanh()?.f_mul_scalar(0.5)?.f_add_scalar(0.5)?,
            Self::Silu => x.f_silu()?,
            Self::Softplus => {
                // log(1 + e^x) = relu(x) + log(1 + e^-|x|)
                let power = Tensor::f_pow_scalar(E, &x.f_abs()?.f_neg()?)?;
                x.f_relu()?.f_add(&power.f_add_scalar(1.)?.f_log()?)?
            }
            Self::Softsign => x.f_div(&x.f_abs()?.f_add_scalar(1.)?)?,
            Self::Tanh => x.f_tanh()?,
        })
    }
}

fn elu(x: &Tensor) -> Result<Tensor, TorchError> {
    let power = Tensor::f_pow_scalar(E, &below_zero(x)?.f_neg()?)?;
    Ok(x.f_relu()?.f_add(&power.f_sub_scalar(1.)?)?)
}

fn hardsigmoid(x: &Tensor) -> Result<Tensor, TorchError> {
    Ok(x.f_div_scalar(6.)?.f_add_scalar(0.5)?.f_clamp(0., 1.)?)
}

/// The absolute value of negative elements, and 0 for the others.
fn below_zero(x: &Tensor) -> Result<Tensor, TorchError> {
    Ok(x.f_neg()?.f_relu()?)
}

/// An activation with its parameters. Only prelu has one.
#[derive(Debug)]
pub struct ActivationLayer {
    activation: Activation,
    slope: Option<Tensor>,
}

impl ActivationLayer {
    /// Reads prelu's `weight`, `[1]`.
    #[must_use]
    pub fn load(activation: Activation, weights: &Weights<'_>) -> Self {
        let slope = (activation == Activation::Prelu).then(|| weights.tensor("weight", &[1]));
        Self { activation, slope }
    }

    /// Applies the activation to every element.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TorchError> {
        match &self.slope {
            Some(slope) => Ok(x.f_relu()?.f_sub(&below_zero(x)?.f_mul(slope)?)?),
            None => self.activation.forward(x),
        }
    }
}

impl From<Activation> for ActivationLayer {
    /// An activation without parameters, for architectures that fix the activation.
    fn from(activation: Activation) -> Self {
        Self { activation, slope: None }
    }
}
