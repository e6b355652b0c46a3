//! Where ggml's allocator puts the tensors of a graph, and how large its arena becomes.
//!
//! The rules (`ggml-alloc.c`): inputs first and in order; then each node, over an operand where the operation allows it and
//! nobody else reads the operand, else in the smallest hole that is large enough, else at the end; an operand is given back
//! after its last reader. All sizes are multiples of the alignment.

use super::{Graph, Place, Tensor};

/// ggml aligns tensors in a CPU buffer to this many bytes.
const ALIGNMENT: u64 = 32;
/// Beyond this an arena is not worth counting, and sums of offsets stay within 64 bits.
const MAX_BYTES: u64 = 1 << 60;

/// A hole.
#[derive(Debug, Clone, Copy)]
struct Hole {
    offset: u64,
    size: u64,
}

/// What is known of a tensor while the graph is placed.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Nodes that have yet to read it.
    readers: u32,
    /// Views of it that have yet to be read.
    views: u32,
    /// Where its data is.
    offset: u64,
    /// It holds memory of its own.
    held: bool,
}

struct Arena {
    /// By offset. The last one is the endless rest.
    holes: Vec<Hole>,
    size: u64,
}

impl Arena {
    fn take(&mut self, size: u64) -> u64 {
        let last = self.holes.len() - 1;
        let mut best = last;
        for (at, hole) in self.holes[..last].iter().enumerate() {
            // Of equal holes the later one.
            if hole.size >= size && (best == last || hole.size <= self.holes[best].size) {
                best = at;
            }
        }
        let hole = &mut self.holes[best];
        let offset = hole.offset;
        hole.offset += size;
        hole.size -= size;
        if hole.size == 0 {
            self.holes.remove(best);
        }
        self.size = self.size.max(offset + size);
        offset
    }

    /// Joins what is given back with the first hole that it touches, and that one with its neighbour.
    fn give_back(&mut self, offset: u64, size: u64) {
        for at in 0..self.holes.len() {
            let Hole { offset: start, size: length } = self.holes[at];
            if start + length == offset {
                self.holes[at].size += size;
                if self.holes.get(at + 1).is_some_and(|next| next.offset == offset + size) {
                    self.holes[at].size += self.holes.remove(at + 1).size;
                }
                return;
            }
            if offset + size == start {
                self.holes[at] = Hole { offset, size: length + size };
                if at > 0 && self.holes[at - 1].offset + self.holes[at - 1].size == offset {
                    let joined = self.holes.remove(at);
                    self.holes[at - 1].size += joined.size;
                }
                return;
            }
        }
        let after = self.holes.partition_point(|hole| hole.offset < offset);
        self.holes.insert(after, Hole { offset, size });
    }
}

/// The size of the arena; `None` when it is absurd.
pub(super) fn bytes(graph: &Graph) -> Option<u64> {
    let total = graph.tensors.iter().try_fold(0_u64, |sum, tensor| sum.checked_add(padded(tensor)?))?;
    if total > MAX_BYTES {
        return None;
    }
    let mut placing = Placing {
        graph,
        states: vec![State::default(); graph.tensors.len()],
        arena: Arena { holes: vec![Hole { offset: 0, size: u64::MAX / 2 }], size: 0 },
    };
    for &leaf in &graph.leaves {
        placing.place(leaf);
    }
    for &node in &graph.nodes {
        if let Place::ViewOf(source) = graph.tensors[node as usize].place {
            placing.states[source as usize].views += 1;
        }
        for &operand in placing.operands(node) {
            placing.states[operand as usize].readers += 1;
            if graph.tensors[operand as usize].input {
                placing.place(operand);
            }
        }
    }
    for &node in &graph.nodes {
        placing.place(node);
        for &operand in placing.operands(node) {
            placing.was_read(operand);
        }
    }
    Some(placing.arena.size)
}

fn padded(tensor: &Tensor) -> Option<u64> {
    match tensor.place {
        Place::Arena => tensor.bytes().checked_next_multiple_of(ALIGNMENT),
        Place::ViewOf(_) | Place::Outside => Some(0),
    }
}

struct Placing<'a> {
    graph: &'a Graph,
    states: Vec<State>,
    arena: Arena,
}

impl<'a> Placing<'a> {
    fn tensor(&self, at: u32) -> &'a Tensor {
        &self.graph.tensors[at as usize]
    }

    fn operands(&self, at: u32) -> &'a [u32] {
        let Tensor { first_operand, operands, .. } = *self.tensor(at);
        &self.graph.operands[first_operand as usize..(first_operand + operands) as usize]
    }

    /// Whether its data is in the arena and its own.
    fn size(&self, at: u32) -> u64 {
        // All sizes were added up before.
        padded(self.tensor(at)).unwrap_or(0)
    }

    fn place(&mut self, at: u32) {
        let tensor = self.tensor(at);
        if self.states[at as usize].held || tensor.place != Place::Arena {
            return;
        }
        let size = self.size(at);
        let reused = if tensor.in_place { self.reuse(at) } else { None };
        let offset = match reused {
            Some(source) => {
                let State { offset, .. } = self.states[source as usize];
                self.states[source as usize].held = false;
                offset
            }
            None => self.arena.take(size),
        };
        let state = &mut self.states[at as usize];
        (state.offset, state.held) = (offset, true);
    }

    /// The operand whose memory the node may take over: as large, read by nobody else, and with memory of its own.
    fn reuse(&self, at: u32) -> Option<u32> {
        let node = self.tensor(at);
        self.operands(at).iter().find_map(|&operand| {
            let tensor = self.tensor(operand);
            let state = &self.states[operand as usize];
            let same_layout = (tensor.kind, tensor.ne, tensor.nb) == (node.kind, node.ne, node.nb);
            let free_to_use = state.held && state.readers == 1 && state.views == 0 && !tensor.output;
            (same_layout && free_to_use).then_some(operand)
        })
    }

    fn was_read(&mut self, at: u32) {
        let state = &mut self.states[at as usize];
        state.readers -= 1;
        if state.readers > 0 || state.views > 0 {
            return;
        }
        match self.tensor(at).place {
            Place::Outside => {}
            Place::Arena => self.free(at),
            Place::ViewOf(source) => {
                let state = &mut self.states[source as usize];
                state.views -= 1;
                if state.views == 0 && state.readers == 0 {
                    self.free(source);
                }
            }
        }
    }

    fn free(&mut self, at: u32) {
        if self.tensor(at).output || !self.states[at as usize].held {
            return;
        }
        self.states[at as usize].held = false;
        let (offset, size) = (self.states[at as usize].offset, self.size(at));
        self.arena.give_back(offset, size);
    }
}
