//! Embeddings: one unit vector for each text.

use locara_gguf::Gguf;

use super::{
    actor::Embeddings,
    batch::Batch,
    context::{Context, DecodeError},
};
use crate::api::{EngineError, Token};

/// Whether the file says how to pool token vectors into one: that makes it an embedding model.
pub(super) fn pools(gguf: &Gguf) -> bool {
    // 0 is "none" in llama.cpp's numbering. A value of another type is llama.cpp's to refuse.
    let kind = gguf.arch_key("pooling_type").and_then(|key| gguf.u32(&key));
    matches!(kind, Ok(Some(kind)) if kind != 0)
}

/// Computes the texts in as few batches as they fit into.
pub(super) fn embed(context: &mut Context, batch: &mut Batch, texts: &[Vec<Token>], n_seq_max: u32) -> Embeddings {
    batch.clear();
    let capacity = batch.room();
    if let Some((at, text)) = texts.iter().enumerate().find(|(_, text)| text.len() > capacity || text.is_empty()) {
        return Err(EngineError::InvalidRequest(format!(
            "text {at} has {} tokens, allowed are 1 to {capacity}; split it",
            text.len()
        )));
    }
    let mut vectors = Vec::with_capacity(texts.len());
    let mut rest = texts;
    while !rest.is_empty() {
        batch.clear();
        let mut n = 0;
        while n < rest.len().min(n_seq_max as usize) && rest[n].len() <= batch.room() {
            let seq = i32::try_from(n).unwrap_or(i32::MAX);
            for (position, token) in (0..).zip(&rest[n]) {
                let _ = batch.push(*token, position, seq, true);
            }
            n += 1;
        }
        let computed = context.decode(batch);
        for seq in 0..n {
            let seq = i32::try_from(seq).unwrap_or(i32::MAX);
            if computed.is_ok() {
                let vector = context.embedding(seq).ok_or_else(|| {
                    EngineError::Unsupported("the model gives no pooled embedding; it has no pooling type".into())
                })?;
                vectors.push(unit(vector));
            }
            context.clear(seq);
        }
        match computed {
            Ok(()) => {}
            Err(DecodeError::Invalid(reason) | DecodeError::Failed(reason)) => return Err(EngineError::Failed(reason)),
            // A cancel of some other request raised the flag; embeddings are short, so compute them again.
            Err(DecodeError::Aborted) => {
                context.abort_flag().store(false, std::sync::atomic::Ordering::Relaxed);
                continue;
            }
            Err(DecodeError::NoCells) => return Err(EngineError::Failed("no KV cells are left".into())),
        }
        rest = &rest[n..];
    }
    Ok(vectors)
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let norm = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if norm > 0.0 {
        for x in &mut vector {
            #[expect(clippy::cast_possible_truncation, reason = "a ratio of two f32 values fits into f32")]
            {
                *x = (f64::from(*x) / norm) as f32;
            }
        }
    }
    vector
}
