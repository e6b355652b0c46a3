//! Models from a hub.

mod quant;

pub(crate) use quant::model_name;
