"""Runs the exported GGUF in numpy: reads the file as llama.cpp does, so that what is
measured is the file that ships and not the weights that were trained."""

import gguf
import numpy as np
from tokenizers import Tokenizer


class Reference:
    """Greedy decoding with a key-value cache over the tensors of a `llama` GGUF."""

    def __init__(self, path, tokenizer_path):
        reader = gguf.GGUFReader(str(path))
        field = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("tokenizer.ggml.token") and not k.endswith("merges")}
        self.tensors = {t.name: np.asarray(t.data, np.float32) for t in reader.tensors}
        self.layers, self.heads = field["llama.block_count"], field["llama.attention.head_count"]
        self.kv_heads, self.head_dim = field["llama.attention.head_count_kv"], field["llama.attention.key_length"]
        self.eps, self.context = field["llama.attention.layer_norm_rms_epsilon"], field["llama.context_length"]
        self.freq = field["llama.rope.freq_base"] ** (-np.arange(0, self.head_dim, 2) / self.head_dim)
        self.end, self.chat_template = field["tokenizer.ggml.eos_token_id"], field["tokenizer.chat_template"]
        self.tokenizer = Tokenizer.from_file(str(tokenizer_path))
        self.clear()

    def clear(self):
        self.keys = [np.zeros((self.kv_heads, 0, self.head_dim), np.float32) for _ in range(self.layers)]
        self.values = list(self.keys)

    def _norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.tensors[name]

    def _rotate(self, x, positions):
        """Rotary embedding over neighbouring pairs, as GGUF's `llama` lays them out."""
        angle = positions[:, None] * self.freq
        cos, sin, even, odd = np.cos(angle), np.sin(angle), x[..., 0::2], x[..., 1::2]
        return np.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape).astype(np.float32)

    def forward(self, tokens):
        """Logits of all the given tokens, which are appended to the cache."""
        past, n = self.keys[0].shape[1], len(tokens)
        positions = np.arange(past, past + n)
        bias = np.where(np.arange(past + n) <= positions[:, None], 0, -np.inf).astype(np.float32)
        t, group = self.tensors, self.heads // self.kv_heads
        x = t["token_embd.weight"][tokens]
        for i in range(self.layers):
            def project(h, name):
                return (h @ t[f"blk.{i}.{name}.weight"].T)

            def heads(h, name, count):
                return project(h, name).reshape(n, count, self.head_dim).transpose(1, 0, 2)

            h = self._norm(x, f"blk.{i}.attn_norm.weight")
            q = self._rotate(heads(h, "attn_q", self.heads), positions)
            self.keys[i] = np.concatenate([self.keys[i], self._rotate(heads(h, "attn_k", self.kv_heads), positions)], 1)
            self.values[i] = np.concatenate([self.values[i], heads(h, "attn_v", self.kv_heads)], 1)
            scores = q @ np.repeat(self.keys[i], group, 0).transpose(0, 2, 1) * self.head_dim ** -0.5 + bias
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            mixed = (scores / scores.sum(-1, keepdims=True)) @ np.repeat(self.values[i], group, 0)
            x = x + project(mixed.transpose(1, 0, 2).reshape(n, -1), "attn_output")
            h = self._norm(x, f"blk.{i}.ffn_norm.weight")
            gate = project(h, "ffn_gate")
            x = x + project(gate / (1 + np.exp(-gate)) * project(h, "ffn_up"), "ffn_down")
        return self._norm(x, "output_norm.weight") @ t["token_embd.weight"].T

    def generate(self, prompt, max_tokens=400):
        """(greedy continuation of rendered ChatML, whether it ended by itself)."""
        self.clear()
        ids, out = self.tokenizer.encode(prompt, add_special_tokens=False).ids, []
        while len(out) < max_tokens and self.keys[0].shape[1] + len(ids) <= self.context:
            token = int(self.forward(np.array(ids))[-1].argmax())
            if token == self.end:
                return self.tokenizer.decode(out, skip_special_tokens=False), True
            out.append(token)
            ids = [token]
        return self.tokenizer.decode(out, skip_special_tokens=False), False

    def perplexity(self, text, window):
        """Perplexity over consecutive windows; the first half of each is context only."""
        ids = np.array(self.tokenizer.encode(text, add_special_tokens=False).ids)
        nll = []
        for start in range(0, len(ids) - window + 1, window):
            self.clear()
            chunk = ids[start:start + window]
            logits = self.forward(chunk)[window // 2 - 1:-1].astype(np.float64)
            top = logits.max(-1)
            logsum = top + np.log(np.exp(logits - top[:, None]).sum(-1))
            nll.append(logsum - logits[np.arange(len(logits)), chunk[window // 2:]])
        return float(np.exp(np.concatenate(nll).mean()))
