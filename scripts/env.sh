# Build settings of llama.cpp for the machine at hand; source it: `. scripts/env.sh`.
#
# llama-cpp-sys-2 forwards GGML_* and CMAKE_* variables to CMake and rebuilds when they change. Its default is an AVX2
# build; AVX-512 is worth 1.35x prefill where the CPU has it, so ask the CPU. Every variable is always set, ON or OFF:
# a cached build of another machine is then noticed and rebuilt instead of dying of an illegal instruction.

_locara_has() { grep -qw "$1" /proc/cpuinfo 2>/dev/null && echo ON || echo OFF; }
if [ "$(uname -m)" = x86_64 ] && [ -r /proc/cpuinfo ]; then
    GGML_AVX512=$(_locara_has avx512f); export GGML_AVX512
    GGML_AVX512_VNNI=$(_locara_has avx512_vnni); export GGML_AVX512_VNNI
    GGML_AVX512_VBMI=$(_locara_has avx512vbmi); export GGML_AVX512_VBMI
    GGML_AVX512_BF16=$(_locara_has avx512_bf16); export GGML_AVX512_BF16
fi
unset -f _locara_has

# `debug = 1` in a cargo profile would silently build llama.cpp with -O2.
export LLAMA_LIB_PROFILE=Release
if command -v ninja >/dev/null 2>&1; then export CMAKE_GENERATOR=Ninja; fi

# One target folder and one compiler cache for all checkouts of this user: the cold build costs 15-25 minutes of two cores.
: "${CARGO_TARGET_DIR:=${XDG_CACHE_HOME:-$HOME/.cache}/locara/target}"; export CARGO_TARGET_DIR
: "${CCACHE_DIR:=${XDG_CACHE_HOME:-$HOME/.cache}/locara/ccache}"; export CCACHE_DIR
