//! Texts to vectors, for all dialects.

use crate::{
    Api,
    access::Caller,
    answering::{count, reply},
    fault::Fault,
};
use locara_engine::Prompt;

/// Texts in one request.
const MAX_TEXTS: usize = 2048;

/// Vectors of unit length, and what they cost.
#[derive(Debug)]
pub(crate) struct Embedded {
    /// The physical model.
    pub(crate) model: String,
    pub(crate) vectors: Vec<Vec<f32>>,
    /// Tokens of all texts.
    pub(crate) tokens: u32,
}

impl Api {
    /// One vector for each text. `path` is what the texts are called in the request; `dimensions` cuts the vectors, which
    /// models that are trained for it (Matryoshka) bear.
    pub(crate) async fn embed(
        &self,
        caller: &Caller,
        model: &str,
        path: &str,
        texts: Vec<String>,
        dimensions: Option<u32>,
    ) -> Result<Embedded, Fault> {
        if texts.is_empty() || texts.len() > MAX_TEXTS {
            return Err(Fault::field(path, format!("{} texts, allowed are 1 to {MAX_TEXTS}", texts.len())));
        }
        if let Some(at) = texts.iter().position(|text| text.is_empty()) {
            let path = if texts.len() == 1 { path.to_owned() } else { format!("{path}[{at}]") };
            return Err(Fault::field(path, "an empty text has no embedding"));
        }
        let served = self.engine(caller, model).await?;
        let width = served.engine.model().n_embd;
        if let Some(dimensions) = dimensions.filter(|dimensions| *dimensions == 0 || *dimensions > width) {
            return Err(Fault::field("dimensions", format!("{dimensions}, {} makes 1 to {width}", served.model)));
        }
        let mut tokens = 0u32;
        for text in &texts {
            tokens = tokens.saturating_add(count(&served, Prompt::Text(text.clone())).await?);
        }
        let mut vectors = reply(served.engine.embed(texts)).await?;
        if let Some(dimensions) = dimensions {
            for vector in &mut vectors {
                vector.truncate(dimensions as usize);
                normalise(vector);
            }
        }
        Ok(Embedded { model: served.model, vectors, tokens })
    }
}

fn normalise(vector: &mut [f32]) {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        for value in vector {
            *value /= length;
        }
    }
}

/// How alike two vectors of unit length are, -1 to 1.
pub(crate) fn similarity(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_vector_has_unit_length_again() {
        let mut vector = vec![3.0, 4.0];
        normalise(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        assert!((similarity(&vector, &vector) - 1.0).abs() < 1e-6);
        normalise(&mut [0.0, 0.0]);
    }
}
