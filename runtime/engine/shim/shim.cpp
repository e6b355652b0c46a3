// What llama.h does not offer through C, and a try/catch around every call that may throw: a C++ exception that reaches
// Rust would end the process. Nothing here keeps state but the text of the last exception, one per thread.
#include "llama.h"
#include "llama-ext.h"

#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>

static thread_local std::string last_exception;

// Runs `call`; on an exception keeps its text and returns `failed`.
template <typename T, typename F> static T guarded(T failed, F call) {
    try {
        last_exception.clear();
        return call();
    } catch (const std::exception & e) {
        last_exception = e.what();
    } catch (...) {
        last_exception = "an exception without a text";
    }
    return failed;
}

struct locara_memory_row {
    char     buffer[64];
    int32_t  host;
    uint64_t model, context, compute;
};

extern "C" {

const char * locara_last_exception(void) { return last_exception.c_str(); }

llama_model * locara_model_load(const char * path, llama_model_params params) {
    return guarded<llama_model *>(nullptr, [&] { return llama_model_load_from_file(path, params); });
}

llama_context * locara_context_new(llama_model * model, llama_context_params params) {
    return guarded<llama_context *>(nullptr, [&] { return llama_init_from_model(model, params); });
}

// -100: an exception; otherwise what llama_decode returns.
int32_t locara_decode(llama_context * ctx, llama_batch batch) {
    return guarded<int32_t>(-100, [&] { return llama_decode(ctx, batch); });
}

int32_t locara_encode(llama_context * ctx, llama_batch batch) {
    return guarded<int32_t>(-100, [&] { return llama_encode(ctx, batch); });
}

// -1: an exception; otherwise a token.
int32_t locara_sample(llama_sampler * sampler, llama_context * ctx, int32_t row) {
    return guarded<int32_t>(-1, [&] { return llama_sampler_sample(sampler, ctx, row); });
}

// INT32_MIN: an exception; otherwise what llama_tokenize returns.
int32_t locara_tokenize(const llama_vocab * vocab, const char * text, int32_t text_len, llama_token * tokens,
                        int32_t n_max, bool add_special, bool parse_special) {
    return guarded<int32_t>(INT32_MIN, [&] {
        return llama_tokenize(vocab, text, text_len, tokens, n_max, add_special, parse_special);
    });
}

// 0: an exception, or nothing to save; otherwise bytes.
size_t locara_state_size(llama_context * ctx, llama_seq_id seq) {
    return guarded<size_t>(0, [&] { return llama_state_seq_get_size_ext(ctx, seq, LLAMA_STATE_SEQ_FLAGS_NONE); });
}

// 0: an exception, or it failed; otherwise the bytes written.
size_t locara_state_get(llama_context * ctx, llama_seq_id seq, uint8_t * data, size_t size) {
    return guarded<size_t>(0, [&] { return llama_state_seq_get_data_ext(ctx, data, size, seq, LLAMA_STATE_SEQ_FLAGS_NONE); });
}

// 0: an exception, or it failed and the sequence may hold a part; otherwise the bytes read.
size_t locara_state_set(llama_context * ctx, llama_seq_id seq, const uint8_t * data, size_t size) {
    return guarded<size_t>(0, [&] { return llama_state_seq_set_data_ext(ctx, data, size, seq, LLAMA_STATE_SEQ_FLAGS_NONE); });
}

// Rows written, or -1. The figures are llama.cpp's own: what it allocated, or would have under no_alloc.
int32_t locara_memory_breakdown(const llama_context * ctx, locara_memory_row * rows, int32_t n_max) {
    return guarded<int32_t>(-1, [&] {
        int32_t n = 0;
        for (const auto & [type, bytes] : llama_get_memory_breakdown(ctx)) {
            if (n == n_max) break;
            snprintf(rows[n].buffer, sizeof(rows[n].buffer), "%s", ggml_backend_buft_name(type));
            rows[n].host    = ggml_backend_buft_is_host(type);
            rows[n].model   = bytes.model;
            rows[n].context = bytes.context;
            rows[n].compute = bytes.compute;
            n++;
        }
        return n;
    });
}

}
