//! The compute graph of a model as far as memory is concerned: shapes, who reads whom, and in which order.
//!
//! llama.cpp keeps every intermediate tensor of its largest graph in one arena, whose size is decided by the graph and by
//! ggml's allocator together. No closed formula follows both to the byte, so the graph is built here again, without weights,
//! cells and values, and [`arena`] places it by the rules of that allocator.
//!
//! What lives outside of the arena (weights, KV cells, recurrent state) does not appear: an operation on it has only its
//! other operands. An operation that is computed in place over a result that nobody else reads takes nothing and is left
//! out: biases, weights of norms, activations. Nothing in this file depends on a model; the graphs of the architectures are in
//! the modules beside.
//!
//! Sources: `ggml.c` (shapes, order of a graph), `ggml-alloc.c` (placement).

mod arena;
pub(crate) mod attention;
pub(crate) mod feed_forward;
pub(crate) mod inputs;
pub(crate) mod models;
pub(crate) mod recurrent;

/// The most tensors of a graph. Real ones have some thousands; a file that asks for more is not planned byte by byte.
const MAX_TENSORS: usize = 1 << 18;

/// A tensor of a [`Graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct T(u32);

/// Number formats of intermediate tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    /// A byte of anything: for tensors of cells, whose blocks have no single element.
    Byte,
    F16,
    F32,
    I32,
    I64,
}

impl Type {
    const fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::F16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::I64 => 8,
        }
    }
}

/// Where the data of a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the arena.
    Arena,
    /// In the data of another tensor.
    ViewOf(u32),
    /// In a weight, a cell or a state.
    Outside,
}

/// A tensor and the operation that makes it.
#[derive(Debug, Clone, Copy)]
struct Tensor {
    /// Elements by dimension, innermost first.
    ne: [u64; 4],
    /// Bytes from one element to the next, by dimension.
    nb: [u64; 4],
    kind: Type,
    place: Place,
    /// The operation may write over one of its operands.
    in_place: bool,
    /// Filled by the host before the graph runs.
    input: bool,
    /// Read by the host after the graph has run.
    output: bool,
    visited: bool,
    /// Its operands: so many of the graph's `operands`, from here on.
    first_operand: u32,
    operands: u32,
}

impl Tensor {
    /// Bytes of its data when it lies in the arena, where everything is contiguous.
    fn bytes(&self) -> u64 {
        self.ne.iter().fold(self.kind.bytes(), |bytes, &n| bytes.saturating_mul(n))
    }
}

/// A graph in the making. Sizes saturate; what does not fit makes [`Graph::arena_bytes`] say `None`.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    tensors: Vec<Tensor>,
    operands: Vec<u32>,
    /// Tensors without an operation, in the order in which the graph meets them.
    leaves: Vec<u32>,
    /// The others, in the order in which they are computed.
    nodes: Vec<u32>,
    /// The graph is larger than any real one, so it was not finished.
    too_large: bool,
}

fn contiguous(kind: Type, ne: [u64; 4]) -> [u64; 4] {
    let mut nb = [kind.bytes(); 4];
    for at in 1..4 {
        nb[at] = nb[at - 1].saturating_mul(ne[at - 1]);
    }
    nb
}

/// Sizes of up to four dimensions; those not given are 1.
pub(crate) fn ne<const N: usize>(sizes: [u64; N]) -> [u64; 4] {
    let mut all = [1; 4];
    all[..N].copy_from_slice(&sizes);
    all
}

impl Graph {
    fn push(&mut self, mut tensor: Tensor, operands: &[T]) -> T {
        if self.tensors.len() >= MAX_TENSORS {
            self.too_large = true;
            return T(0);
        }
        // Bounded by `MAX_TENSORS` times the operands of one operation.
        tensor.first_operand = self.operands.len() as u32;
        tensor.operands = operands.len() as u32;
        self.operands.extend(operands.iter().map(|operand| operand.0));
        self.tensors.push(tensor);
        T((self.tensors.len() - 1) as u32)
    }

    fn at(&self, tensor: T) -> &Tensor {
        &self.tensors[tensor.0 as usize]
    }

    fn make(&mut self, kind: Type, ne: [u64; 4], in_place: bool, operands: &[T]) -> T {
        let nb = contiguous(kind, ne);
        let tensor = Tensor {
            ne,
            nb,
            kind,
            place: Place::Arena,
            in_place,
            input: false,
            output: false,
            visited: false,
            first_operand: 0,
            operands: 0,
        };
        self.push(tensor, operands)
    }

    /// Elements by dimension.
    pub(crate) fn ne(&self, tensor: T) -> [u64; 4] {
        self.at(tensor).ne
    }

    fn elements(&self, tensor: T) -> u64 {
        self.ne(tensor).iter().fold(1, |product: u64, &n| product.saturating_mul(n))
    }

    /// A tensor that the host fills.
    pub(crate) fn input<const N: usize>(&mut self, kind: Type, sizes: [u64; N]) -> T {
        let input = self.make(kind, ne(sizes), false, &[]);
        self.tensors[input.0 as usize].input = true;
        input
    }

    /// A tensor that the host reads: neither freed nor written over.
    pub(crate) fn set_output(&mut self, tensor: T) {
        self.tensors[tensor.0 as usize].output = true;
    }

    /// An operation with a result of its own.
    pub(crate) fn op<const N: usize>(&mut self, sizes: [u64; N], operands: &[T]) -> T {
        self.make(Type::F32, ne(sizes), false, operands)
    }

    /// The same with a result that is not f32.
    pub(crate) fn op_of<const N: usize>(&mut self, kind: Type, sizes: [u64; N], operands: &[T]) -> T {
        self.make(kind, ne(sizes), false, operands)
    }

    /// An operation that may write over an operand: scale, add, multiply, divide, unary, RoPE, RMS norm, clamp, softmax. The
    /// result is as the first operand.
    pub(crate) fn in_place(&mut self, operands: &[T]) -> T {
        let Tensor { kind, ne, .. } = *self.at(operands[0]);
        self.make(kind, ne, true, operands)
    }

    /// An operation that writes outside of the arena.
    pub(crate) fn store(&mut self, operands: &[T]) -> T {
        let store = self.op([0], operands);
        self.tensors[store.0 as usize].place = Place::Outside;
        store
    }

    /// An operation that writes into the data of another tensor and gives that as its result.
    pub(crate) fn store_into(&mut self, target: T, operands: &[T]) -> T {
        let store = self.view_as(target, self.ne(target), self.at(target).nb);
        // The view was just made with its target as the only operand.
        self.operands.pop();
        let at = store.0 as usize;
        self.tensors[at].first_operand = self.operands.len() as u32;
        self.tensors[at].operands = operands.len() as u32;
        self.operands.extend(operands.iter().map(|operand| operand.0));
        store
    }

    /// A weight matrix of so many rows times `x`.
    pub(crate) fn linear(&mut self, x: T, rows: u64) -> T {
        let [_, tokens, b, c] = self.ne(x);
        self.op([rows, tokens, b, c], &[x])
    }

    /// `b` through the matrix `a`, both intermediate.
    pub(crate) fn mul_mat(&mut self, a: T, b: T) -> T {
        let ([_, rows, ..], [_, columns, x, y]) = (self.ne(a), self.ne(b));
        self.op([rows, columns, x, y], &[a, b])
    }

    /// Rows of `x` that `ids` name.
    pub(crate) fn get_rows(&mut self, x: T, ids: T) -> T {
        let (width, [a, b, c, _]) = (self.ne(x)[0], self.ne(ids));
        self.op([width, a, b, c], &[x, ids])
    }

    /// RMS norm.
    pub(crate) fn rms_norm(&mut self, x: T) -> T {
        self.in_place(&[x])
    }

    /// Layer norm, which cannot be computed in place.
    pub(crate) fn layer_norm(&mut self, x: T) -> T {
        self.op(self.ne(x), &[x])
    }

    /// A contiguous copy.
    pub(crate) fn cont(&mut self, x: T) -> T {
        let Tensor { kind, ne, .. } = *self.at(x);
        self.make(kind, ne, false, &[x])
    }

    /// A contiguous copy with other sizes.
    pub(crate) fn cont_as<const N: usize>(&mut self, x: T, sizes: [u64; N]) -> T {
        let kind = self.at(x).kind;
        self.make(kind, ne(sizes), false, &[x])
    }

    fn view_as(&mut self, x: T, ne: [u64; 4], nb: [u64; 4]) -> T {
        let source = *self.at(x);
        let place = match source.place {
            Place::Arena => Place::ViewOf(x.0),
            // A view of a view is one of the data.
            other => other,
        };
        let view = Tensor { ne, nb, place, in_place: false, input: false, output: false, visited: false, ..source };
        self.push(view, &[x])
    }

    /// The same elements in other dimensions.
    pub(crate) fn reshape<const N: usize>(&mut self, x: T, sizes: [u64; N]) -> T {
        let kind = self.at(x).kind;
        self.view_as(x, ne(sizes), contiguous(kind, ne(sizes)))
    }

    /// A part of the rows, with their distances: `strides` are those of the dimensions from the second on.
    pub(crate) fn view<const N: usize>(&mut self, x: T, sizes: [u64; N], strides: &[u64]) -> T {
        let element = self.at(x).kind.bytes();
        let sizes = ne(sizes);
        let mut nb = [element; 4];
        for at in 1..4 {
            nb[at] = strides.get(at - 1).copied().unwrap_or_else(|| nb[at - 1].saturating_mul(sizes[at - 1]));
        }
        self.view_as(x, sizes, nb)
    }

    /// Dimension `i` of `x` becomes dimension `to[i]`.
    pub(crate) fn permute(&mut self, x: T, to: [usize; 4]) -> T {
        let source = *self.at(x);
        let (mut ne, mut nb) = ([1; 4], [0; 4]);
        for (from, &to) in to.iter().enumerate() {
            ne[to] = source.ne[from];
            nb[to] = source.nb[from];
        }
        self.view_as(x, ne, nb)
    }

    /// The first two dimensions change places.
    pub(crate) fn transpose(&mut self, x: T) -> T {
        self.permute(x, [1, 0, 2, 3])
    }

    /// Bytes from one element of a dimension to the next.
    pub(crate) fn stride(&self, x: T, dimension: usize) -> u64 {
        self.at(x).nb[dimension]
    }

    fn is_contiguous(&self, x: T) -> bool {
        let tensor = self.at(x);
        tensor.nb == contiguous(tensor.kind, tensor.ne)
    }

    /// Adds the tensor and everything that it needs to the graph: operands first, left to right.
    pub(crate) fn expand(&mut self, tensor: T) {
        let at = tensor.0 as usize;
        if std::mem::replace(&mut self.tensors[at].visited, true) {
            return;
        }
        let Tensor { first_operand, operands, .. } = self.tensors[at];
        for operand in first_operand..first_operand + operands {
            self.expand(T(self.operands[operand as usize]));
        }
        if self.tensors[at].input {
            self.leaves.push(tensor.0);
        } else {
            self.nodes.push(tensor.0);
        }
    }

    /// Bytes of the arena that holds the graph; `None` when they cannot be counted.
    pub(crate) fn arena_bytes(&self) -> Option<u64> {
        if self.too_large { None } else { arena::bytes(self) }
    }
}
