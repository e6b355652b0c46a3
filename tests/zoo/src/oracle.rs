//! What must hold for every file that the reader accepts; shared by its tests and its fuzz target.

use locara_gguf::{GgmlType, Gguf};

use crate::draft::{Draft, Meta, TensorDraft};
use crate::weights::Fill;

/// A small file with a value of every type and tensors of several formats.
#[must_use]
pub fn one_of_each() -> Draft {
    let mut draft = Draft::new(1);
    draft.key("general.architecture", "llama");
    draft.key("general.alignment", 32_u32);
    let values = [
        Meta::U8(1),
        Meta::I8(-1),
        Meta::U16(2),
        Meta::I16(-2),
        Meta::U32(3),
        Meta::I32(-3),
        Meta::U64(4),
        Meta::I64(-4),
        Meta::F32(0.5),
        Meta::F64(-0.5),
        Meta::Bool(true),
        Meta::Str("text".into()),
        Meta::U32s(vec![1, 2, 3]),
        Meta::F32s(vec![0.5, 1.5]),
        Meta::Bools(vec![true, false]),
        Meta::Strs(vec!["one".into(), "two".into()]),
    ];
    for (index, value) in values.into_iter().enumerate() {
        draft.key(format!("llama.key{index}"), value);
    }
    for (name, dims, kind) in
        [("a", vec![8, 4], GgmlType::F32), ("b", vec![64, 2], GgmlType::Q8_0), ("c", vec![256], GgmlType::Q4K)]
    {
        draft.tensors.push(TensorDraft { name: name.into(), dims, kind, fill: Fill::Random(1.0) });
    }
    draft
}

/// Asks a file everything there is to ask: no getter may panic, and the tensors must lie side by side inside the file.
///
/// # Panics
/// When they do not.
pub fn interrogate(gguf: &Gguf) {
    for (key, _) in gguf.metadata() {
        assert!(gguf.get(key).is_some(), "{key:?} is listed and not found");
        let _ = (gguf.u32(key), gguf.u64(key), gguf.f32(key), gguf.bool(key), gguf.str(key), gguf.array(key));
        let _ = (gguf.u32s(key), gguf.per_layer_u32(key, 3), gguf.per_layer_u32(key, u32::MAX), gguf.need_u32(key));
    }
    let _ = (gguf.architecture(), gguf.n_vocab(), gguf.chat_template(), gguf.check_model());
    let mut end = gguf.data_offset();
    assert!(end.is_multiple_of(gguf.alignment()));
    for tensor in gguf.tensors() {
        assert_eq!(tensor.offset(), end.next_multiple_of(gguf.alignment()), "{tensor:?}");
        end = tensor.offset() + tensor.bytes();
        assert!(end <= gguf.file_len(), "{tensor:?} ends behind the file of {}", gguf.file_len());
        assert_eq!(gguf.tensor(tensor.name()), Some(tensor));
        let elements = tensor.bytes() / tensor.kind().block_bytes() * tensor.kind().block_elements();
        assert_eq!(tensor.elements(), elements, "{tensor:?}");
    }
    assert_eq!(gguf.data_offset() + gguf.weights_bytes(), end.next_multiple_of(gguf.alignment()));
    assert!(gguf.tensor_bytes() <= gguf.weights_bytes());
}
