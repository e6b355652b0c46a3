//! Numbers on which llama.cpp aborts the process instead of returning an error.

use crate::{Gguf, GgufError, limits};

/// Layers that llama.cpp has room for (`LLAMA_MAX_LAYERS`).
const MAX_LAYERS: u32 = 512;

/// Experts that llama.cpp has room for (`LLAMA_MAX_EXPERTS`).
const MAX_EXPERTS: u32 = 1_024;

/// Scalings of rotary positions that llama.cpp knows.
const ROPE_SCALINGS: [&str; 4] = ["none", "linear", "yarn", "longrope"];

/// Architectures that count a plain feed-forward layer as one expert.
const ONE_EXPERT_IS_NONE: [&str; 2] = ["hunyuan-dense", "hunyuan_vl"];

impl Gguf {
    /// Refuses a file that would end the process when llama.cpp loads it as a model.
    ///
    /// The rules are the assertions of `llama_model_base::load_hparams`, which come before llama.cpp has looked at any
    /// tensor. It does not promise that the model loads: architectures have further rules, and a file of unknown
    /// origin is still loaded in a child process first. Not for files that are no models (adapters, projectors).
    ///
    /// # Errors
    /// [`GgufError::Unloadable`], and what the getters return.
    pub fn check_model(&self) -> Result<(), GgufError> {
        let layers = self.ranged("block_count", 1, MAX_LAYERS)?;
        self.ranged("context_length", 1, u32::MAX)?;
        self.ranged("embedding_length", 1, u32::MAX)?;
        let predicting = self.arch_key("nextn_predict_layers")?;
        if let Some(extra) = self.u32(&predicting)?.filter(|&extra| extra > layers) {
            return Err(unloadable(predicting, extra, format!("at most the {layers} of block_count")));
        }
        self.check_experts(layers)?;
        let scaling = self.arch_key("rope.scaling.type")?;
        match self.str(&scaling)? {
            Some(name) if !ROPE_SCALINGS.contains(&name) => {
                Err(unloadable(scaling, format!("{name:?}"), format!("one of {}", ROPE_SCALINGS.join(", "))))
            }
            _ => Ok(()),
        }
    }

    fn check_experts(&self, layers: u32) -> Result<(), GgufError> {
        let count_key = self.arch_key("expert_count")?;
        let used_key = self.arch_key("expert_used_count")?;
        let groups_key = self.arch_key("expert_group_count")?;
        let count = self.u32(&count_key)?.unwrap_or(0);
        let used = self.per_layer_u32(&used_key, layers)?.and_then(|used| used.into_iter().max()).unwrap_or(0);
        let groups = self.u32(&groups_key)?.unwrap_or(0);
        if count <= 1 && ONE_EXPERT_IS_NONE.contains(&self.architecture()?) {
            return Ok(());
        }
        if count > MAX_EXPERTS {
            return Err(unloadable(count_key, count, format!("at most {MAX_EXPERTS}")));
        }
        if used > count || (count > 0 && used == 0) {
            let least = count.min(1);
            return Err(unloadable(used_key, used, format!("{least} to the {count} of expert_count")));
        }
        if groups > 0 && groups >= count {
            return Err(unloadable(groups_key, groups, format!("below the {count} of expert_count")));
        }
        if groups > 1 {
            if !count.is_multiple_of(groups) {
                return Err(unloadable(groups_key, groups, format!("a divisor of the {count} of expert_count")));
            }
            let groups_used_key = self.arch_key("expert_group_used_count")?;
            let groups_used = self.u32(&groups_used_key)?.unwrap_or(0);
            if !(1..groups).contains(&groups_used) {
                return Err(unloadable(groups_used_key, groups_used, format!("1 to {}", groups - 1)));
            }
        }
        Ok(())
    }

    /// A required number between `least` and `most`.
    fn ranged(&self, suffix: &str, least: u32, most: u32) -> Result<u32, GgufError> {
        let key = self.arch_key(suffix)?;
        let number = self.need_u32(&key)?;
        if (least..=most).contains(&number) {
            return Ok(number);
        }
        Err(unloadable(key, number, format!("{least} to {most}")))
    }
}

// What is asked per layer must fit into an array that is kept.
const _: () = assert!(MAX_LAYERS as u64 <= limits::MAX_KEPT_ELEMENTS);

fn unloadable(key: String, found: impl ToString, rule: String) -> GgufError {
    GgufError::Unloadable { key, found: found.to_string(), rule }
}
