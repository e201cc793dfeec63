//! Element types of weight files as libtorch's.

use tch::Kind;

use crate::checkpoint::Dtype;

impl From<Dtype> for Kind {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F64 => Self::Double,
            Dtype::F32 => Self::Float,
            Dtype::F16 => Self::Half,
            Dtype::Bf16 => Self::BFloat16,
            Dtype::I64 => Self::Int64,
            Dtype::I32 => Self::Int,
            Dtype::I16 => Self::Int16,
            Dtype::I8 => Self::Int8,
            Dtype::U8 => Self::Uint8,
            Dtype::Bool => Self::Bool,
            // These types are never weights. libtorch 2.7 has them, but tch has no names for them; only their size matters here.
            Dtype::U16 => Self::Int16,
            Dtype::U32 => Self::Int,
            Dtype::U64 => Self::Int64,
            Dtype::F8 => Self::Uint8,
        }
    }
}
