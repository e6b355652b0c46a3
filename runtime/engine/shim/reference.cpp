// llama.cpp's own generation loop, as its examples write it: the yardstick of `make bench`. One context, greedy sampling,
// nothing of Locara in between.
#include "llama.h"

#include <chrono>
#include <cstdint>
#include <exception>
#include <vector>

static double now_ms() {
    using namespace std::chrono;
    return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

struct batch_of {
    llama_batch raw;
    explicit batch_of(int32_t n) : raw(llama_batch_init(n, 0, 1)) {}
    ~batch_of() { llama_batch_free(raw); }
    void clear() { raw.n_tokens = 0; }
    void add(llama_token token, llama_pos pos, llama_seq_id seq, bool output) {
        const int32_t i = raw.n_tokens++;
        raw.token[i] = token; raw.pos[i] = pos; raw.n_seq_id[i] = 1; raw.seq_id[i][0] = seq; raw.logits[i] = output;
    }
};

// Prefills `n_prompt` tokens of each of `n_seq` sequences in batches of `n_batch`, then decodes `n_decode` tokens of each
// together. Writes both times. 0: done; anything else: llama_decode's status, or -100 for an exception.
extern "C" int32_t locara_reference_loop(llama_context * ctx, const llama_token * prompt, int32_t n_prompt, int32_t n_batch,
                                         int32_t n_seq, int32_t n_decode, double * prefill_ms, double * decode_ms) {
    try {
        llama_memory_clear(llama_get_memory(ctx), true);
        batch_of batch(n_batch > n_seq ? n_batch : n_seq);
        llama_sampler * greedy = llama_sampler_init_greedy();
        std::vector<llama_token> next(n_seq);
        const double start = now_ms();
        for (int32_t s = 0; s < n_seq; s++) {
            for (int32_t done = 0; done < n_prompt; done += batch.raw.n_tokens) {
                batch.clear();
                while (batch.raw.n_tokens < n_batch && done + batch.raw.n_tokens < n_prompt) {
                    const int32_t i = done + batch.raw.n_tokens;
                    batch.add(prompt[i], i, s, i + 1 == n_prompt);
                }
                if (const int32_t status = llama_decode(ctx, batch.raw)) { llama_sampler_free(greedy); return status; }
            }
            next[s] = llama_sampler_sample(greedy, ctx, -1);
        }
        const double prefilled = now_ms();
        for (int32_t i = 0; i < n_decode; i++) {
            batch.clear();
            for (int32_t s = 0; s < n_seq; s++) batch.add(next[s], n_prompt + i, s, true);
            if (const int32_t status = llama_decode(ctx, batch.raw)) { llama_sampler_free(greedy); return status; }
            for (int32_t s = 0; s < n_seq; s++) next[s] = llama_sampler_sample(greedy, ctx, s);
        }
        *prefill_ms = prefilled - start;
        *decode_ms  = now_ms() - prefilled;
        llama_sampler_free(greedy);
        return 0;
    } catch (const std::exception &) {
        return -100;
    } catch (...) {
        return -100;
    }
}
