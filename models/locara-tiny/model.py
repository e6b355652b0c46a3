"""The Llama-architecture model in JAX: shape, initial weights, forward pass and optimiser.

Weights are a flat dict of float32 arrays in Hugging Face's layout: a matrix is
[out, in], and rotary embedding turns the two halves of a head.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np


BLOCK = 128     # queries that attention takes at a time


@dataclass(frozen=True)
class Shape:
    vocab: int = 2048
    dim: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    ff: int = 704
    context: int = 2048
    rope_theta: float = 10000.0
    eps: float = 1e-5


def init(shape, seed):
    """Initial weights with an induction circuit laid out in the first two layers.

    A model of this size on this few tokens would spend most of its training on
    discovering how to copy, which is what all of its tasks rest on. So the
    residual stream starts out divided into fields, and three kinds of head
    start out with a purpose; everything else starts as noise whose output is
    zero, and training is free to change all of it.

      layer 0   one head copies the last token into the field `last`, one the
                token before that into `before`;
      layer 1   two heads look for an earlier place that follows the same two
                tokens as here, and copy the token found there to the output.
    """
    rng = np.random.default_rng(seed)
    token, last, before, constant = range(0, 112), 112, 176, 255    # fields of the residual stream
    scale, d = 0.1, shape.head_dim

    def noise(rows, cols, size=1.0):
        return (rng.standard_normal((rows, cols)) * size * cols ** -0.5).astype(np.float32)

    embed = noise(shape.vocab, shape.dim, 0.2)
    embed[:, token] = rng.standard_normal((shape.vocab, len(token))) * scale
    embed[:, constant] = scale * len(token) ** 0.5
    params = {"embed": embed, "norm": np.ones(shape.dim, np.float32)}
    for i in range(shape.layers):
        params |= {
            f"{i}.attn_norm": np.ones(shape.dim, np.float32), f"{i}.ffn_norm": np.ones(shape.dim, np.float32),
            f"{i}.q": noise(shape.heads * d, shape.dim), f"{i}.k": noise(shape.kv_heads * d, shape.dim),
            f"{i}.v": noise(shape.kv_heads * d, shape.dim), f"{i}.o": np.zeros((shape.dim, shape.heads * d), np.float32),
            f"{i}.gate": noise(shape.ff, shape.dim), f"{i}.up": noise(shape.ff, shape.dim),
            f"{i}.down": np.zeros((shape.dim, shape.ff), np.float32),
        }

    # Layer 0, heads 0 and 1 on the first key-value head: the constant field gives fixed
    # queries and a fixed key whose rotary phases agree at a distance of one and two.
    q, k, v, o = (params[f"0.{m}"] for m in "qkvo")
    q[:2 * d] = k[:d] = v[:d] = 0
    pairs = np.arange(8)                                            # the fastest rotary pairs tell neighbours apart
    phase = shape.rope_theta ** (-2 * pairs / d)
    for head, distance in ((0, 1), (1, 2)):
        q[head * d + pairs, constant] = 0.65 * np.cos(distance * phase)
        q[head * d + d // 2 + pairs, constant] = -0.65 * np.sin(distance * phase)
    k[pairs, constant] = 0.65
    v[np.arange(d), np.arange(d)] = 1
    o[last + np.arange(d), np.arange(d)] = scale
    o[before + np.arange(32), d + 32 + np.arange(32)] = scale

    # Layer 1, one head on each key-value head: slow rotary pairs, the slower ones for far places,
    # compare what was last here with what came before there; the two value heads together carry
    # the whole token field.
    q, k, v, o = (params[f"1.{m}"] for m in "qkvo")
    for kv, head, first_pair, n, gain in ((0, 0, 16, 20, 2.4), (1, 2, 22, 12, 3.2)):
        q[head * d:(head + 1) * d] = k[kv * d:(kv + 1) * d] = v[kv * d:(kv + 1) * d] = 0
        slow = np.concatenate([np.arange(first_pair, 32), np.arange(32 + first_pair, 64)])
        one, two = slow[:n], slow[n:]
        q[head * d + one, 20 * kv + np.arange(n)] = gain
        k[kv * d + one, last + 20 * kv + np.arange(n)] = gain
        q[head * d + two, last + 32 + 12 * kv + np.arange(len(two))] = gain
        k[kv * d + two, before + 12 * kv + np.arange(len(two))] = gain
        v[kv * d + np.arange(d), 48 * kv + np.arange(d)] = 1
        rows = np.arange(d) if kv == 0 else np.arange(16, d)
        o[48 * kv + rows, head * d + rows] = 3.5 * scale
    return {name: jnp.asarray(value) for name, value in params.items()}


def rms_norm(x, weight, eps):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + eps) * weight


def rotate(x, cos, sin):
    """Rotary embedding of [batch, heads, length, head_dim]."""
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def attention(q, k, v, segments):
    """Causal attention within segments. Queries are taken in blocks, each of which sees
    only the keys up to its end: that saves nearly half of the work."""
    batch, heads, length, head_dim = q.shape
    kv_heads, size = k.shape[1], min(BLOCK, length)
    out = []
    for start in range(0, length, size):
        end = min(start + size, length)
        block = q[:, :, start:end].reshape(batch, kv_heads, -1, head_dim)      # the heads of a group share their keys
        scores = (block @ k[:, :, :end].transpose(0, 1, 3, 2)).reshape(batch, heads, end - start, end)
        visible = (segments[:, start:end, None] == segments[:, None, :end]) & jnp.tril(jnp.ones((end - start, end), bool), start)
        weights = jax.nn.softmax(jnp.where(visible[:, None], scores, -1e9), -1)
        out.append((weights.reshape(batch, kv_heads, -1, end) @ v[:, :, :end]).reshape(batch, heads, end - start, head_dim))
    return jnp.concatenate(out, 2)


def forward(params, tokens, segments, shape):
    """Logits of packed rows; a token attends to earlier tokens of its own segment only."""
    batch, length = tokens.shape
    freq = shape.rope_theta ** (-jnp.arange(0, shape.head_dim, 2) / shape.head_dim)
    angle = jnp.arange(length)[:, None] * freq
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    group = shape.heads // shape.kv_heads

    def heads(x, n):
        return x.reshape(batch, length, n, shape.head_dim).transpose(0, 2, 1, 3)

    x = params["embed"][tokens]
    for i in range(shape.layers):
        p = {k: params[f"{i}.{k}"] for k in ("attn_norm", "ffn_norm", "q", "k", "v", "o", "gate", "up", "down")}
        h = rms_norm(x, p["attn_norm"], shape.eps)
        q = rotate(heads(h @ p["q"].T, shape.heads), cos, sin)
        k = rotate(heads(h @ p["k"].T, shape.kv_heads), cos, sin)
        v = heads(h @ p["v"].T, shape.kv_heads)
        mixed = attention(q * shape.head_dim ** -0.5, k, v, segments)
        x = x + mixed.transpose(0, 2, 1, 3).reshape(batch, length, -1) @ p["o"].T
        h = rms_norm(x, p["ffn_norm"], shape.eps)
        x = x + (jax.nn.silu(h @ p["gate"].T) * (h @ p["up"].T)) @ p["down"].T
    return rms_norm(x, params["norm"], shape.eps) @ params["embed"].T


def loss(params, tokens, segments, weights, prompt_weight, shape):
    """Weighted cross-entropy of the next token, and the plain one over answer tokens, which weigh more than prompts."""
    logits = forward(params, tokens[:, :-1], segments[:, :-1], shape)
    target, weight = tokens[:, 1:], weights[:, 1:] * (segments[:, 1:] == segments[:, :-1])
    nll = jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, target[..., None], -1)[..., 0]
    answer = (weight > prompt_weight).astype(jnp.float32)
    return (nll * weight).sum() / weight.sum(), (nll * answer).sum() / jnp.maximum(answer.sum(), 1.0)


def orthogonalise(m):
    """Newton-Schulz iteration of Muon: the nearest matrix with singular values about one."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = m.shape[0] > m.shape[1]
    x = (m.T if tall else m) / (jnp.linalg.norm(m) + 1e-7)
    for _ in range(5):
        g = x @ x.T
        x = a * x + (b * g + c * (g @ g)) @ x
    return x.T if tall else x


def is_hidden_matrix(name, value):
    return value.ndim == 2 and name != "embed"


def optimiser_state(params):
    return {"m": {k: jnp.zeros_like(v) for k, v in params.items()},
            "v": {k: jnp.zeros_like(v) for k, v in params.items() if not is_hidden_matrix(k, v)}}


def update(params, state, grads, step, lr_muon, lr_adam):
    """One step: Muon for the hidden matrices, Adam for the embedding and the norms."""
    norm = jnp.sqrt(sum((g * g).sum() for g in grads.values()))
    clip = jnp.minimum(1.0, 1.0 / (norm + 1e-6))
    new, m, v = {}, {}, {}
    for name, p in params.items():
        g = grads[name] * clip
        if is_hidden_matrix(name, p):
            m[name] = 0.95 * state["m"][name] + 0.05 * g
            direction = orthogonalise(0.95 * m[name] + 0.05 * g) * max(1.0, p.shape[0] / p.shape[1]) ** 0.5
            new[name] = p * (1 - 0.01 * lr_muon) - lr_muon * direction
        else:
            m[name] = 0.9 * state["m"][name] + 0.1 * g
            v[name] = 0.98 * state["v"][name] + 0.02 * g * g
            m_hat, v_hat = m[name] / (1 - 0.9 ** step), v[name] / (1 - 0.98 ** step)
            new[name] = p - lr_adam * m_hat / (jnp.sqrt(v_hat) + 1e-8)
    return new, {"m": m, "v": v}, norm
