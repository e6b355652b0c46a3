//! What must hold for every plan.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue should say where")]

mod common;

use common::{bert, deepseek_v3, gemma3_12b, layered, llama_1b, llama_8b, mamba, qwen_7b, qwen3_next, shared_kv};
use locara_policy::{
    ArchClass, Bytes, Device, Kind, KvType, ModelShape, Plan, PlanError, PlanRequest, plan,
    plan::{Backing, Draft, Part},
    shape::Experts,
};
use proptest::{prelude::*, sample::select};

/// The cells of the published table: Llama-3.2-1B, 4096 tokens, one sequence, FlashAttention.
fn cell(n_ctx: u32, n_outputs_max: u32, n_ubatch: u32) -> PlanRequest {
    PlanRequest {
        n_ctx,
        n_seq_max: 1,
        type_k: KvType::F16,
        type_v: KvType::F16,
        n_batch: 2048,
        n_ubatch,
        n_outputs_max,
        flash_attention: true,
        ..PlanRequest::new(Device::Cpu)
    }
}

#[test]
fn compute_buffers_of_the_published_table() {
    let table = [
        (cell(4096, 0, 512), 274.5),
        (cell(4096, 1, 512), 72.0),
        (cell(4096, 1, 128), 18.0),
        (cell(32_768, 1, 512), 100.0),
    ];
    for (request, mib) in table {
        let plan = plan(&llama_1b(), &request).unwrap();
        let computed = plan.of_kind(Kind::Compute).as_mib();
        assert!((computed - mib).abs() < 0.05, "{computed} MiB, published {mib}");
    }
    let off = plan(&llama_1b(), &PlanRequest { flash_attention: false, ..cell(4096, 1, 512) }).unwrap();
    let computed = off.of_kind(Kind::Compute).as_mib();
    assert!((computed - 290.0).abs() < 0.05, "{computed} MiB without FlashAttention, published 290.0");
}

#[test]
fn weights_are_file_backed_on_a_cpu_wired_on_a_shared_gpu_and_copied_to_a_discrete_one() {
    let shape = qwen_7b(4_680);
    let cpu = plan(&shape, &PlanRequest::new(Device::Cpu)).unwrap();
    assert_eq!((cpu.of_kind(Kind::WeightsMapped), cpu.file_backed), (Bytes::mb(4_680), Bytes::mb(4_680)));
    assert_eq!(cpu.gpu_working_set(), Bytes::ZERO);

    let unified = plan(&shape, &PlanRequest::new(Device::UnifiedGpu)).unwrap();
    assert_eq!((unified.of_kind(Kind::WeightsWired), unified.file_backed), (Bytes::mb(4_680), Bytes::mb(4_680)));
    let tables = unified.of_kind(Kind::Tables);
    assert_eq!(unified.gpu_working_set().checked_add(tables), Some(unified.total));

    let discrete = plan(&shape, &PlanRequest::new(Device::DiscreteGpu)).unwrap();
    assert_eq!(discrete.weights(), Bytes::mb(4_680));
    assert_eq!(discrete.file_backed, shape.weights.token_embedding);
    assert_eq!(discrete.gpu_working_set(), discrete.on_device);
    assert!(discrete.on_device > discrete.of_kind(Kind::WeightsCopied));
}

#[test]
fn a_tied_table_is_on_the_host_and_on_the_discrete_gpu() {
    let shape = llama_1b();
    let plan = plan(&shape, &PlanRequest::new(Device::DiscreteGpu)).unwrap();
    assert_eq!(plan.weights(), shape.weights.bytes.checked_add(shape.weights.token_embedding).unwrap());
}

#[test]
fn a_speculative_pair_is_charged_as_one() {
    let alone = PlanRequest::new(Device::UnifiedGpu);
    let (target, small) = (qwen_7b(4_400), llama_1b());
    let draft = Draft { shape: small.clone(), type_k: KvType::Q8_0, type_v: KvType::Q8_0, n_draft_max: 8 };
    let pair = plan(&target, &PlanRequest { draft: Some(Box::new(draft)), ..alone.clone() }).unwrap();
    let (one, other) = (plan(&target, &alone).unwrap(), plan(&small, &alone).unwrap());

    assert_eq!(pair.weights(), one.weights().checked_add(other.weights()).unwrap());
    assert_eq!(pair.of_kind(Kind::Kv), one.of_kind(Kind::Kv).checked_add(other.of_kind(Kind::Kv)).unwrap());
    // 4 sequences × (8 guesses and 1 more) rows of logits, instead of 4.
    let verified = pair.items.iter().find(|item| item.kind == Kind::Output && item.part == Part::Main).unwrap();
    assert_eq!(verified.bytes, Bytes(36 * 152_064 * 4));
    assert!(pair.items.iter().filter(|item| item.part == Part::Draft).all(|item| item.label.starts_with("draft ")));
}

#[test]
fn guests_and_prompt_caches_are_items_of_their_own() {
    let request =
        PlanRequest { guest_memory: Bytes::mib(64), prompt_cache: Bytes::mib(256), ..PlanRequest::new(Device::Cpu) };
    let plan = plan(&llama_1b(), &request).unwrap();
    assert_eq!((plan.of_kind(Kind::GuestMemory), plan.of_kind(Kind::PrefixCache)), (Bytes::mib(64), Bytes::mib(256)));
}

#[test]
fn the_prompt_of_a_large_vocabulary_shows_why_outputs_are_limited() {
    let limited = plan(&llama_8b(), &PlanRequest::new(Device::Cpu)).unwrap();
    let unlimited = plan(&llama_8b(), &PlanRequest { n_outputs_max: 0, ..PlanRequest::new(Device::Cpu) }).unwrap();
    let saved = unlimited.total.checked_sub(limited.total).unwrap();
    assert!(saved > Bytes::mb(250), "only {saved}");
}

#[test]
fn impossible_requests_are_refused_with_the_reason() {
    let refuse = |change: fn(&mut PlanRequest)| {
        let mut request = PlanRequest::new(Device::Cpu);
        change(&mut request);
        plan(&llama_1b(), &request).unwrap_err().to_string()
    };
    assert_eq!(refuse(|r| r.n_ctx = 0), "n_ctx is 0; give the number of tokens or sequences that are really wanted");
    assert!(refuse(|r| r.n_seq_max = 0).starts_with("n_seq_max is 0"));
    assert!(refuse(|r| r.n_batch = 0).starts_with("n_batch is 0"));
    assert!(refuse(|r| r.n_ubatch = 0).starts_with("n_ubatch is 0"));
    assert_eq!(
        refuse(|r| r.type_v = KvType::Q8_0),
        "values kept as q8_0 need FlashAttention; turn it on, or use f16 for V"
    );
    assert!(refuse(|r| r.n_ctx = u32::MAX).contains("lower n_ctx"));

    let none = ModelShape { layers: Vec::new(), ..llama_1b() };
    assert_eq!(plan(&none, &PlanRequest::new(Device::Cpu)), Err(PlanError::Layers { layers: 0 }));
    let many = ModelShape { layers: vec![llama_1b().layers[0].clone(); 513], ..llama_1b() };
    assert_eq!(plan(&many, &PlanRequest::new(Device::Cpu)), Err(PlanError::Layers { layers: 513 }));
    let huge = ModelShape { n_embd: u32::MAX, n_vocab: u32::MAX, ..llama_1b() };
    let request = PlanRequest { n_outputs_max: 0, n_batch: u32::MAX, ..PlanRequest::new(Device::Cpu) };
    assert!(matches!(plan(&huge, &request), Err(PlanError::Overflow { .. })));
}

#[test]
fn windows_save_cells_only_when_they_are_asked_to() {
    let full = PlanRequest { n_ctx: 32_768, ..PlanRequest::new(Device::Cpu) };
    let windowed = PlanRequest { swa_full: false, ..full.clone() };
    let kv = |request: &PlanRequest| plan(&gemma3_12b(), request).unwrap().of_kind(Kind::Kv);
    // 40 of 48 layers see 1024 tokens of each of 4 sequences, and a batch of 512.
    assert_eq!(kv(&windowed).get() * 48 * 32_768, kv(&full).get() * (8 * 32_768 + 40 * (4 * 1024 + 512)));
}

#[test]
fn estimates_are_called_estimates() {
    let experts = Some(Experts { total: 128, active: 8, n_ff: 768 });
    let moe = ModelShape { experts, architecture: "qwen3moe".to_owned(), ..qwen_7b(17_000) };
    let compute = |shape: &ModelShape, device| {
        let request = PlanRequest { type_k: KvType::F16, type_v: KvType::F16, ..PlanRequest::new(device) };
        plan(shape, &request).unwrap().items.into_iter().find(|item| item.kind == Kind::Compute).unwrap()
    };
    for shape in [gemma3_12b(), deepseek_v3(), qwen3_next(), mamba(), shared_kv(), bert(), moe] {
        // The graphs were compared on a CPU; a GPU has other operations and alignments.
        assert!(!compute(&shape, Device::UnifiedGpu).exact, "{}", shape.architecture);
        assert!(compute(&shape, Device::Cpu).exact, "{}", shape.architecture);
        // A file with parts that nobody followed.
        let mut strange = shape.clone();
        strange.graph.unfollowed = true;
        assert!(!compute(&strange, Device::Cpu).exact, "{}", shape.architecture);
    }
    let unknown = ModelShape { architecture: "brand-new".to_owned(), ..llama_1b() };
    assert!(
        !plan(&unknown, &PlanRequest::new(Device::Cpu))
            .unwrap()
            .items
            .iter()
            .any(|item| item.kind == Kind::Compute && item.exact)
    );
}

#[test]
fn a_plan_survives_json() {
    let plan = plan(&gemma3_12b(), &PlanRequest::new(Device::UnifiedGpu)).unwrap();
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<locara_policy::Plan>(&text).unwrap(), plan);
}

fn shapes() -> impl Strategy<Value = ModelShape> {
    select(vec![
        llama_1b(),
        llama_8b(),
        qwen_7b(4_680),
        gemma3_12b(),
        deepseek_v3(),
        qwen3_next(),
        mamba(),
        shared_kv(),
        bert(),
    ])
}

prop_compose! {
    fn requests()(
        n_ctx in 1u32..200_000,
        n_seq_max in 1u32..17,
        kv_unified in any::<bool>(),
        swa_full in any::<bool>(),
        type_k in select(KvType::ALL.to_vec()),
        type_v in select(KvType::ALL.to_vec()),
        n_batch in 1u32..4096,
        n_ubatch in 1u32..2048,
        n_outputs_max in 0u32..64,
        flash_attention in any::<bool>(),
        device in select(vec![Device::Cpu, Device::UnifiedGpu, Device::DiscreteGpu]),
        guest in 0u64..1 << 32,
    ) -> PlanRequest {
        // Only requests that llama.cpp would take.
        let flash_attention = flash_attention || type_v.is_quantised();
        PlanRequest {
            n_ctx, n_seq_max, kv_unified, swa_full, type_k, type_v, n_batch, n_ubatch, n_outputs_max, flash_attention, device,
            guest_memory: Bytes(guest), prompt_cache: Bytes::ZERO, draft: None,
        }
    }
}

/// The plan, in one type where the model takes no two.
fn planned(shape: &ModelShape, request: &PlanRequest) -> Plan {
    let mut request = request.clone();
    if shape.class() == ArchClass::Latent {
        request.type_v = request.type_k;
        request.flash_attention |= request.type_v.is_quantised();
    }
    plan(shape, &request).unwrap()
}

proptest! {
    #[test]
    fn totals_are_the_sum_of_the_items(shape in shapes(), request in requests()) {
        let plan = planned(&shape, &request);
        let backed = |backing| plan.items.iter().filter(|item| item.backing == backing).map(|item| item.bytes.get()).sum::<u64>();
        prop_assert_eq!(plan.items.iter().map(|item| item.bytes.get()).sum::<u64>(), plan.total.get());
        prop_assert_eq!(backed(Backing::File), plan.file_backed.get());
        prop_assert_eq!(backed(Backing::Anonymous), plan.anonymous.get());
        prop_assert_eq!(backed(Backing::Device), plan.on_device.get());
        prop_assert_eq!(Kind::ALL.map(|kind| plan.of_kind(kind).get()).iter().sum::<u64>(), plan.total.get());
        prop_assert!(plan.peak >= plan.total);
        prop_assert!(plan.gpu_working_set() <= plan.total);
        prop_assert!(plan.n_ctx >= request.n_ctx);
    }

    #[test]
    fn more_context_never_needs_less(shape in shapes(), request in requests(), more in 0u32..100_000) {
        let larger = PlanRequest { n_ctx: request.n_ctx + more, ..request.clone() };
        prop_assert!(planned(&shape, &larger).total >= planned(&shape, &request).total);
    }

    /// Of one pool, that is. (Scratch memory is not monotone, nor are the outputs of an encoder: tokens are rounded up to a
    /// multiple of the sequences.)
    #[test]
    fn more_sequences_never_need_less_state(shape in shapes(), request in requests(), more in 1u32..8) {
        let request = PlanRequest { kv_unified: true, ..request };
        let more = PlanRequest { n_seq_max: request.n_seq_max + more, ..request.clone() };
        let (few, many) = (planned(&shape, &request), planned(&shape, &more));
        prop_assert!(many.of_kind(Kind::Kv) >= few.of_kind(Kind::Kv));
        prop_assert!(shape.embeds() || many.of_kind(Kind::Output) >= few.of_kind(Kind::Output));
    }

    #[test]
    fn smaller_types_need_less(request in requests()) {
        let with = |type_k, type_v| {
            let request = PlanRequest { type_k, type_v, flash_attention: true, ..request.clone() };
            plan(&llama_8b(), &request).unwrap().of_kind(Kind::Kv)
        };
        prop_assert!(with(KvType::Q8_0, KvType::Q8_0) < with(KvType::Q8_0, KvType::F16));
        prop_assert!(with(KvType::Q8_0, KvType::F16) < with(KvType::F16, KvType::F16));
        prop_assert!(with(KvType::Q4_0, KvType::Q4_0) < with(KvType::Q5_0, KvType::Q5_0));
        prop_assert_eq!(with(KvType::F16, KvType::F16), with(KvType::Bf16, KvType::Bf16));
    }

    #[test]
    fn no_shape_and_no_request_panics(
        n_embd in any::<u32>(), n_vocab in any::<u32>(), n_ff in any::<u32>(), heads in any::<[u32; 4]>(),
        recurrent in any::<u32>(), window in any::<Option<u32>>(), encoder in any::<bool>(),
        weights in any::<u64>(), numbers in any::<[u32; 5]>(), fa in any::<bool>(), unified in any::<bool>(),
    ) {
        let [n_head, n_head_kv, head_dim_k, head_dim_v] = heads;
        let attention = locara_policy::Attention::Grouped { n_head, n_head_kv, head_dim_k, head_dim_v, window };
        let mut shape = layered("llama", &[(2, attention, recurrent)]);
        shape.layers[0].n_ff = n_ff;
        shape.weights.bytes = Bytes(weights);
        shape.experts = Some(Experts { total: n_ff, active: n_vocab, n_ff });
        let shape = ModelShape { n_embd, n_vocab, encoder, ..shape };
        let [n_ctx, n_seq_max, n_batch, n_ubatch, n_outputs_max] = numbers;
        let request = PlanRequest {
            n_ctx, n_seq_max, n_batch, n_ubatch, n_outputs_max, flash_attention: fa, kv_unified: unified,
            ..PlanRequest::new(Device::UnifiedGpu)
        };
        let _answer = plan(&shape, &request);
    }
}
