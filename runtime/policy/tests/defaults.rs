//! The shipped defaults, one test each.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue should say where")]

mod common;

use common::{llama_70b, qwen_7b, qwen_14b};
use locara_policy::{Bytes, Defaults, Device, Kind, KvType, Machine, ModelShape, PlanRequest, defaults, plan};

fn air() -> Defaults {
    defaults(&Machine::named("air-16").unwrap(), Some(&qwen_7b(4_683)))
}
fn on_cpu() -> Defaults {
    defaults(&Machine::cpu("this machine", Bytes::gib(16), 6), Some(&qwen_7b(4_683)))
}

#[test]
fn the_context_is_8192_tokens() {
    assert_eq!(air().n_ctx.value, 8192);
    assert_eq!(defaults(&Machine::named("air-16").unwrap(), None).n_ctx.value, 8192);
}

#[test]
fn the_context_is_never_longer_than_the_model_was_trained_for() {
    let short = ModelShape { n_ctx_train: 3000, ..qwen_7b(4_683) };
    let setting = defaults(&Machine::named("air-16").unwrap(), Some(&short)).n_ctx;
    assert_eq!((setting.value, setting.why.as_str()), (3000, "the model was trained on 3000 tokens"));
    // 0 means that the file does not say.
    let unknown = ModelShape { n_ctx_train: 0, ..qwen_7b(4_683) };
    assert_eq!(defaults(&Machine::named("air-16").unwrap(), Some(&unknown)).n_ctx.value, 8192);
}

#[test]
fn the_context_shrinks_until_the_kv_fits_its_budget() {
    let machine = Machine::named("air-8").unwrap();
    let setting = defaults(&machine, Some(&llama_70b(42_520))).n_ctx;
    assert_eq!(
        (setting.value, setting.why.as_str()),
        (4096, "halved from 8192 until the KV fits into 1.1 GB on air-8")
    );
    let tiny = Machine::cpu("tiny", Bytes::gib(1), 1);
    assert_eq!(defaults(&tiny, Some(&llama_70b(42_520))).n_ctx.value, 2048, "but not below a useful length");
}

#[test]
fn four_sequences_share_one_pool() {
    assert_eq!(air().max_sequences.value, 4);
    assert!(air().request().kv_unified);
}

#[test]
fn kv_is_q8_0_for_both_with_flash_attention_on_a_gpu() {
    let defaults = air();
    assert_eq!((defaults.type_k.value, defaults.type_v.value), (KvType::Q8_0, KvType::Q8_0));
    assert!(defaults.flash_attention.value);
}

#[test]
fn kv_is_q8_0_and_f16_without_flash_attention_on_a_cpu() {
    let defaults = on_cpu();
    assert_eq!((defaults.type_k.value, defaults.type_v.value), (KvType::Q8_0, KvType::F16));
    assert!(!defaults.flash_attention.value);
}

#[test]
fn the_kv_budget_is_an_eighth_of_memory_and_at_most_8_gb() {
    let budget = |name| defaults(&Machine::named(name).unwrap(), None).kv_budget.value;
    assert_eq!([budget("air-8"), budget("air-16"), budget("mbp-36")], [Bytes::gib(1), Bytes::gib(2), Bytes::mib(4608)]);
    assert_eq!([budget("mac-64"), budget("studio-128")], [Bytes::gb(8); 2]);
    for machine in Machine::line_up() {
        let defaults = defaults(&machine, Some(&qwen_14b(8_990)));
        let kv = plan(&qwen_14b(8_990), &defaults.request()).unwrap().of_kind(Kind::Kv);
        assert!(kv <= defaults.kv_budget.value, "{kv} on {}", machine.name);
    }
}

#[test]
fn threads_are_the_performance_cores() {
    assert_eq!((air().n_threads.value, on_cpu().n_threads.value), (4, 6));
    assert_eq!(defaults(&Machine::cpu("odd", Bytes::gib(4), 0), None).n_threads.value, 1);
}

#[test]
fn idle_models_are_unloaded_after_three_minutes() {
    assert_eq!(air().idle_unload_seconds.value, 180);
}

#[test]
fn one_chat_model_is_resident() {
    assert_eq!(air().resident_chat_models.value, 1);
}

#[test]
fn speculative_decoding_is_off() {
    assert!(!air().speculative.value);
}

#[test]
fn the_suggested_model_of_a_16_gb_machine_is_a_7b_as_q4_k_m() {
    assert_eq!(air().suggested_model.value, "7B to 8B parameters as Q4_K_M");
}

#[test]
fn logits_are_kept_for_one_token_of_each_sequence() {
    assert_eq!(air().n_outputs_max.value, air().max_sequences.value);
}

#[test]
fn batches_are_short_enough_to_cancel_between_them() {
    assert!((256..=512).contains(&air().n_batch.value));
    assert_eq!(air().request().n_ubatch, air().n_batch.value);
}

#[test]
fn the_memory_cap_is_the_tighter_of_gpu_and_memory() {
    let machine = Machine::named("air-16").unwrap();
    assert_eq!(air().memory_cap.value, machine.gpu_room().unwrap().bytes);
    // A GPU that was allowed nearly everything must not starve the system.
    let generous = Machine::unified_gpu("this machine", Bytes::gib(16), 4, Bytes::gib(15));
    assert_eq!(defaults(&generous, None).memory_cap.value, generous.room().bytes);
}

#[test]
fn without_a_word_a_plan_asks_for_the_defaults() {
    // The prompt cache follows from the model.
    let asks = |defaults: Defaults, device| {
        let prompt_cache = defaults.prompt_cache.value;
        assert_eq!(defaults.request(), PlanRequest { prompt_cache, ..PlanRequest::new(device) });
    };
    asks(air(), Device::UnifiedGpu);
    asks(on_cpu(), Device::Cpu);
}

#[test]
fn every_default_says_why() {
    let json = serde_json::to_value(air()).unwrap();
    let settings: Vec<_> = json.as_object().unwrap().values().filter_map(|setting| setting.get("why")).collect();
    assert!(settings.len() >= 14, "{} settings", settings.len());
    assert!(settings.iter().all(|why| !why.as_str().unwrap().is_empty()));
}

#[test]
fn a_model_that_cannot_be_kept_as_the_default_has_it_is_kept_as_f16() {
    let machine = Machine::cpu("this machine", Bytes::gib(16), 6);
    let latent = defaults(&machine, Some(&common::deepseek_v3()));
    assert_eq!((latent.type_k.value, latent.type_v.value), (KvType::F16, KvType::F16));
    assert!(plan(&common::deepseek_v3(), &latent.request()).is_ok());
}
