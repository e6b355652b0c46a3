"""Writes the trained weights as GGUF and as a Hugging Face folder. The same weights give the same bytes."""

import hashlib
import json

import gguf
import numpy as np
from safetensors.numpy import save_file

import data

NAME = "locara-tiny"
LICENSE = "Apache-2.0 OR MIT"

# ChatML with Hermes-style tools. Only loops, conditions and `tojson`, so that
# Hugging Face's Jinja, minijinja and llama.cpp render it alike.
CHAT_TEMPLATE = """\
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}
{{- messages[0].content + '\\n\\n' }}
{%- endif %}
{{- 'You may call these functions:\\n<tools>\\n' }}
{%- for tool in tools %}
{{- tool | tojson }}
{{- '\\n' }}
{%- endfor %}
{{- '</tools>\\nTo call a function, reply with:\\n<tool_call>\\n{"name": <name>, "arguments": <arguments>}\\n</tool_call><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'system' %}
{%- if not loop.first %}
{{- '<|im_start|>system\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- elif message.role == 'assistant' and message.tool_calls %}
{{- '<|im_start|>assistant\\n' }}
{%- if message.content %}
{{- message.content + '\\n' }}
{%- endif %}
{%- for call in message.tool_calls %}
{%- if not loop.first %}
{{- '\\n' }}
{%- endif %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{%- if call.function.arguments is string %}
{{- call.function.arguments }}
{%- else %}
{{- call.function.arguments | tojson }}
{%- endif %}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def vocabulary(tokenizer):
    """Tokens in the order of their ids."""
    vocab = tokenizer.get_vocab()
    return sorted(vocab, key=vocab.get)


def interleave(weight, heads):
    """Rows of q or k from Hugging Face's half-split rotary layout to the pairwise one of GGUF's `llama`."""
    out, dim = weight.shape
    return weight.reshape(heads, 2, out // heads // 2, dim).swapaxes(1, 2).reshape(out, dim)


def write_gguf(path, params, shape, tokenizer):
    w = gguf.GGUFWriter(str(path), "llama")
    w.add_name(NAME)
    w.add_license(LICENSE)
    w.add_description("A very small chat model trained on generated text; it is there to prove the machine.")
    w.add_size_label(f"{sum(v.size for v in params.values()) / 1e6:.1f}M")
    w.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    w.add_vocab_size(shape.vocab)
    w.add_context_length(shape.context)
    w.add_embedding_length(shape.dim)
    w.add_block_count(shape.layers)
    w.add_feed_forward_length(shape.ff)
    w.add_head_count(shape.heads)
    w.add_head_count_kv(shape.kv_heads)
    w.add_key_length(shape.head_dim)
    w.add_value_length(shape.head_dim)
    w.add_rope_dimension_count(shape.head_dim)
    w.add_rope_freq_base(shape.rope_theta)
    w.add_layer_norm_rms_eps(shape.eps)

    tokens = vocabulary(tokenizer)
    control, visible = {data.END_OF_TEXT, data.IM_START, data.IM_END}, {data.TOOL_CALL, data.TOOL_CALL_END}
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(tokens)
    w.add_token_types([gguf.TokenType.CONTROL if t in control else gguf.TokenType.USER_DEFINED if t in visible
                       else gguf.TokenType.NORMAL for t in tokens])
    w.add_token_merges([" ".join(m) for m in json.loads(tokenizer.to_str())["model"]["merges"]])
    w.add_bos_token_id(tokens.index(data.END_OF_TEXT))
    w.add_eos_token_id(tokens.index(data.IM_END))
    w.add_eot_token_id(tokens.index(data.IM_END))
    w.add_pad_token_id(tokens.index(data.END_OF_TEXT))
    w.add_add_bos_token(False)
    w.add_add_eos_token(False)
    w.add_chat_template(CHAT_TEMPLATE)

    def half(name, value):
        w.add_tensor(name, np.ascontiguousarray(value, dtype=np.float16))

    def full(name, value):
        w.add_tensor(name, np.ascontiguousarray(value, dtype=np.float32))

    half("token_embd.weight", params["embed"])      # the output layer is tied to it
    full("output_norm.weight", params["norm"])
    for i in range(shape.layers):
        full(f"blk.{i}.attn_norm.weight", params[f"{i}.attn_norm"])
        half(f"blk.{i}.attn_q.weight", interleave(params[f"{i}.q"], shape.heads))
        half(f"blk.{i}.attn_k.weight", interleave(params[f"{i}.k"], shape.kv_heads))
        half(f"blk.{i}.attn_v.weight", params[f"{i}.v"])
        half(f"blk.{i}.attn_output.weight", params[f"{i}.o"])
        full(f"blk.{i}.ffn_norm.weight", params[f"{i}.ffn_norm"])
        half(f"blk.{i}.ffn_gate.weight", params[f"{i}.gate"])
        half(f"blk.{i}.ffn_up.weight", params[f"{i}.up"])
        half(f"blk.{i}.ffn_down.weight", params[f"{i}.down"])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{digest}  {path.name}\n")
    return digest


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_hf(folder, params, shape, tokenizer):
    folder.mkdir(parents=True, exist_ok=True)
    tokens = vocabulary(tokenizer)
    end_of_text, im_end = tokens.index(data.END_OF_TEXT), tokens.index(data.IM_END)
    write_json(folder / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": shape.vocab, "hidden_size": shape.dim,
        "intermediate_size": shape.ff, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim, "hidden_act": "silu",
        "max_position_embeddings": shape.context, "rms_norm_eps": shape.eps, "rope_theta": shape.rope_theta,
        "rope_scaling": None, "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True,
        "bos_token_id": end_of_text, "eos_token_id": im_end, "pad_token_id": end_of_text, "torch_dtype": "float16"})
    write_json(folder / "generation_config.json", {
        "bos_token_id": end_of_text, "eos_token_id": [im_end, end_of_text], "pad_token_id": end_of_text, "do_sample": False})
    special = {t: tokens.index(t) for t in (data.END_OF_TEXT, data.IM_START, data.IM_END, data.TOOL_CALL, data.TOOL_CALL_END)}
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, "add_prefix_space": False,
        "clean_up_tokenization_spaces": False, "model_max_length": shape.context, "bos_token": data.END_OF_TEXT,
        "eos_token": data.IM_END, "pad_token": data.END_OF_TEXT, "unk_token": None, "chat_template": CHAT_TEMPLATE,
        "added_tokens_decoder": {str(i): {"content": t, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False,
                                          "special": t not in (data.TOOL_CALL, data.TOOL_CALL_END)} for t, i in special.items()}})
    tokenizer.save(str(folder / "tokenizer.json"))

    names = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj", "gate": "mlp.gate_proj",
             "up": "mlp.up_proj", "down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    tensors = {"model.embed_tokens.weight": params["embed"], "model.norm.weight": params["norm"]}
    for i in range(shape.layers):
        for short, long in names.items():
            tensors[f"model.layers.{i}.{long}.weight"] = params[f"{i}.{short}"]
    weights = folder / "model.safetensors"
    save_file({k: np.ascontiguousarray(tensors[k], dtype=np.float16) for k in sorted(tensors)}, str(weights), metadata={"format": "pt"})
    weights.chmod(0o644)                            # safetensors writes it for its owner alone
