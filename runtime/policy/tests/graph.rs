//! The graphs of the architectures, asked about shapes that no converter would write.

use locara_policy::{
    Attention, Bytes, Device, KvType, Layer, ModelShape, PlanRequest,
    compute::FOLLOWED,
    plan,
    shape::{Experts, GraphDims, Pooling, Weights},
};
use proptest::{prelude::*, sample::select};

/// Sizes at the borders of what is believed, and small ones that divide nothing.
fn size() -> impl Strategy<Value = u32> {
    // Mostly believable, or hardly any shape would get as far as its graph.
    prop_oneof![
        100 => select(vec![1, 2, 3, 5, 31, 32, 63, 64, 96, 128, 1000]),
        3 => select(vec![0, 1 << 10, 1 << 20]),
        1 => select(vec![(1 << 20) + 1, 1 << 24, u32::MAX]),
    ]
}

fn attention() -> impl Strategy<Value = Attention> {
    (0..4, [size(), size(), size(), size()], proptest::option::of(size())).prop_map(|(kind, sizes, window)| {
        let [n_head, n_head_kv, head_dim_k, head_dim_v] = sizes;
        match kind {
            0 => Attention::Grouped { n_head, n_head_kv, head_dim_k, head_dim_v, window },
            1 => Attention::Latent { n_head, kv_lora_rank: head_dim_k, rope_dim: head_dim_v },
            2 => Attention::Shared { n_head, head_dim_k, head_dim_v, window },
            _ => Attention::None,
        }
    })
}

fn layer() -> impl Strategy<Value = Layer> {
    (size(), attention(), size()).prop_map(|(n_ff, attention, recurrent_f32)| Layer { n_ff, attention, recurrent_f32 })
}

fn dims() -> impl Strategy<Value = GraphDims> {
    let sizes = prop::collection::vec(size(), 18);
    let flags = any::<[bool; 4]>();
    let pooling = select(vec![Pooling::None, Pooling::Mean, Pooling::OneToken, Pooling::Rank]);
    (sizes, flags, pooling).prop_map(|(sizes, [fused_qkv, expert_norm, expert_bias, ssm_norm], pooling)| GraphDims {
        unfollowed: false,
        pooling,
        fused_qkv,
        dense_layers: sizes[0],
        n_ff_shared: sizes[1],
        expert_norm,
        expert_bias,
        q_lora_rank: sizes[2],
        head_dim_k_mla: sizes[3],
        head_dim_v_mla: sizes[4],
        per_layer_embd: sizes[5],
        ssm_conv: sizes[6],
        ssm_inner: sizes[7],
        ssm_state: sizes[8],
        ssm_rank: sizes[9],
        ssm_groups: sizes[10],
        ssm_norm,
        short_conv: sizes[11],
        wkv_head: sizes[12],
        rwkv_mix_rank: sizes[13],
        rwkv_decay_rank: sizes[14],
        rwkv_rate_rank: sizes[15],
        rwkv_value_rank: sizes[16],
        rwkv_gate_rank: sizes[17],
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Overflow checks are on in every profile, so a figure that wraps is a panic too.
    #[test]
    fn no_architecture_panics(
        architecture in select([FOLLOWED.as_slice(), &["brand-new"]].concat()),
        layers in prop::collection::vec(layer(), 1..4),
        graph in dims(),
        sizes in prop::collection::vec(size(), 5),
        experts in proptest::option::of([size(), size(), size()]),
        encoder in any::<bool>(),
        (n_ctx, n_seq_max, n_batch, n_ubatch) in (size(), size(), size(), size()),
        (type_k, type_v, flash_attention, kv_unified) in (select(KvType::ALL.to_vec()), select(KvType::ALL.to_vec()), any::<bool>(), any::<bool>()),
    ) {
        let shape = ModelShape {
            architecture: architecture.to_owned(),
            layers,
            n_embd: sizes[0],
            n_vocab: sizes[1],
            n_ctx_train: sizes[2],
            experts: experts.map(|[total, active, n_ff]| Experts { total, active, n_ff }),
            encoder,
            graph,
            weights: Weights { bytes: Bytes(1 << 20), ..Weights::default() },
            parameters: 1,
            active_parameters: 1,
        };
        let request = PlanRequest {
            n_ctx, n_seq_max, n_batch, n_ubatch, type_k, type_v, flash_attention, kv_unified,
            ..PlanRequest::new(Device::Cpu)
        };
        let _answer = plan(&shape, &request);
    }
}
