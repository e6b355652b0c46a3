//! Keys that no manifest may hold, because what they set is the host's (invariants 2 and 13): each with the reason.
//!
//! They are unknown keys anyway. Naming them turns "unknown key" into an answer to the question behind it.

/// A key that is the host's.
pub(crate) struct HostOwned {
    /// Names in camel case. Case, `-` and `_` do not matter when a key is looked up.
    spellings: &'static [&'static str],
    /// What the key sets, as the subject of a sentence.
    pub(crate) what: &'static str,
    /// Why an app must not set it.
    pub(crate) why: &'static str,
    /// What to do instead.
    pub(crate) fix: &'static str,
    /// Whether the owner of the machine has no key for it either, in no file of the host.
    pub(crate) nobodys: bool,
}

const REMOVE: &str = "remove the key";

/// The table. A spelling is listed once.
const TABLE: &[HostOwned] = &[
    HostOwned {
        spellings: &[
            "threads",
            "nThreads",
            "numThreads",
            "threadCount",
            "threadsBatch",
            "nThreadsBatch",
            "cpus",
            "cpuMask",
            "numa",
        ],
        what: "the number of threads",
        why: "only the host sees the cores and everyone else who wants them; more threads than fast cores are slower",
        fix: REMOVE,
        nobodys: true,
    },
    HostOwned {
        spellings: &[
            "gpuLayers",
            "nGpuLayers",
            "numGpu",
            "ngl",
            "gpu",
            "mainGpu",
            "device",
            "devices",
            "tensorSplit",
            "splitMode",
            "offload",
        ],
        what: "how much of a model runs on the GPU",
        why: "the host offloads all of it wherever it fits, and knows when it does not",
        fix: REMOVE,
        nobodys: true,
    },
    HostOwned {
        spellings: &["mmap", "noMmap", "useMmap", "directIo"],
        what: "how weights enter memory",
        why: "weights are mapped once, shared and read-only, so that the system can take clean pages back without swapping",
        fix: REMOVE,
        nobodys: true,
    },
    HostOwned {
        spellings: &["mlock", "useMlock", "pin", "pinned", "wired"],
        what: "whether memory is locked",
        why: "locked weights cannot be taken back under pressure, so everything else on the machine would swap",
        fix: "remove the key; ask for `keepLoaded` with a reason if reloading hurts",
        nobodys: true,
    },
    HostOwned {
        spellings: &[
            "kvType",
            "kvCacheType",
            "cacheType",
            "cacheTypeK",
            "cacheTypeV",
            "typeK",
            "typeV",
            "ctk",
            "ctv",
            "kvQuant",
            "kvCacheQuant",
        ],
        what: "the type of the KV cache",
        why: "the host picks it for the device, q8_0 by default; an app can only ask for a better one, with a reason",
        fix: "remove the key, or ask for quality: `\"kv\": {\"type\": \"f16\", \"reason\": \"…\"}` in an entry of `models`",
        nobodys: false,
    },
    HostOwned {
        spellings: &[
            "unload",
            "unloadAfter",
            "unloadPolicy",
            "keepAlive",
            "ttl",
            "idle",
            "idleTtl",
            "idleTimeout",
            "idleSeconds",
            "idleUnload",
            "idlePolicy",
            "autoUnload",
            "preload",
        ],
        what: "when a model is loaded and unloaded",
        why: "models are shared, and memory that one app holds while idle is memory that another one lacks",
        fix: "remove the key; ask for `keepLoaded` with a reason in an entry of `models` if reloading hurts",
        nobodys: false,
    },
    HostOwned {
        spellings: &[
            "batch",
            "batchSize",
            "nBatch",
            "ubatch",
            "ubatchSize",
            "nUbatch",
            "parallel",
            "nParallel",
            "numParallel",
            "nSeqMax",
            "maxSequences",
        ],
        what: "how requests are batched",
        why: "one batch serves all apps at once; its size decides how long everyone waits for the next token",
        fix: REMOVE,
        nobodys: false,
    },
    HostOwned {
        spellings: &["flashAttention", "flashAttn", "fa"],
        what: "FlashAttention",
        why: "the host switches it on where the device and the KV type gain from it",
        fix: REMOVE,
        nobodys: true,
    },
    HostOwned {
        spellings: &[
            "swap",
            "allowSwap",
            "useSwap",
            "swapSpace",
            "noSwap",
            "memoryLock",
            "oversubscribe",
            "overcommit",
        ],
        what: "whether the machine may swap",
        why: "the host never lets it: what does not fit is queued or refused with the numbers",
        fix: "remove the key, and state the real need in `requires.memoryGB`",
        nobodys: true,
    },
    HostOwned {
        spellings: &["repack", "repacking", "extraBufts", "useExtraBufts", "noRepack"],
        what: "private copies of the weights",
        why: "a repacked copy doubles the memory of a model and cannot be shared or taken back",
        fix: REMOVE,
        nobodys: true,
    },
    HostOwned {
        spellings: &["priority", "nice", "qos", "affinity"],
        what: "how the app is scheduled against others",
        why: "an app that sets its own priority takes from the others",
        fix: "remove the key; `class` says whether a person waits",
        nobodys: false,
    },
    HostOwned {
        spellings: &["speculative", "draftMax", "draftMin", "nDraft", "numDraft"],
        what: "how drafting is done",
        why: "drafting pays only on some machines, so the host measures it and decides",
        fix: "remove the key; `draft` in an entry of `models` names a role that may draft",
        nobodys: false,
    },
    HostOwned {
        spellings: &[
            "ropeScale",
            "ropeScaling",
            "ropeFreqBase",
            "ropeFreqScale",
            "yarn",
            "contextShift",
            "numCtx",
            "nCtx",
            "ctxSize",
        ],
        what: "how a model's context is set up",
        why: "the host reads it from the model and makes as many cells as the planner reserved",
        fix: "remove the key; `context` in an entry of `models` says how many tokens the app needs",
        nobodys: false,
    },
    HostOwned {
        spellings: &["modelPath", "modelFile", "gguf", "weights", "hfRepo", "quant", "quantization", "quantisation"],
        what: "which model file plays a role",
        why: "apps name what they need, and the owner of the machine decides which model that is",
        fix: "remove the key; name a `role` in an entry of `models`",
        nobodys: false,
    },
];

/// The entry of a key, however it is capitalised, hyphenated or underscored.
pub(crate) fn find(key: &str) -> Option<&'static HostOwned> {
    if key.len() > 40 {
        return None; // longer than any spelling
    }
    let folded = fold(key);
    TABLE.iter().find(|entry| entry.spellings.iter().any(|spelling| spelling.to_lowercase() == folded))
}

fn fold(key: &str) -> String {
    key.to_lowercase().replace(['-', '_'], "")
}

/// The keys in camel, snake and kebab case, as alternatives of a regular expression: what an editor can recognise.
pub(crate) fn pattern(wanted: impl Fn(&HostOwned) -> bool) -> String {
    let mut all: Vec<String> = Vec::new();
    for spelling in TABLE.iter().filter(|entry| wanted(entry)).flat_map(|entry| entry.spellings) {
        for separator in ["", "_", "-"] {
            let name = if separator.is_empty() { (*spelling).to_owned() } else { separated(spelling, separator) };
            if !all.contains(&name) {
                all.push(name);
            }
        }
    }
    format!("^({})$", all.join("|"))
}

/// `cacheTypeK` as `cache_type_k`.
fn separated(camel: &str, separator: &str) -> String {
    let mut out = String::new();
    for c in camel.chars() {
        if c.is_ascii_uppercase() {
            out.push_str(separator);
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_spelling_belongs_to_one_entry() {
        let mut seen = HashSet::new();
        for spelling in TABLE.iter().flat_map(|entry| entry.spellings) {
            assert!(seen.insert(fold(spelling)), "{spelling} is listed twice");
            assert!(spelling.bytes().all(|b| b.is_ascii_alphabetic()), "{spelling} is not in camel case");
        }
    }

    #[test]
    fn finds_every_way_to_write_a_key() {
        for key in ["nThreads", "n_gpu_layers", "no-mmap", "MLOCK", "cacheTypeK", "keep_alive", "flash-attn"] {
            assert!(find(key).is_some(), "{key}");
        }
        assert!(find("name").is_none());
    }

    #[test]
    fn separates_at_capitals() {
        assert_eq!(separated("cacheTypeK", "_"), "cache_type_k");
        assert_eq!(separated("mlock", "-"), "mlock");
    }
}
