//! Writes classic BPF with labels: its conditional jumps reach 255 instructions only, its unconditional ones any
//! distance, both forward only.

use crate::sys::packet_socket::{Instruction, MAX_INSTRUCTIONS};

/// What a filter returns for a packet that it admits: all bytes of it.
pub const ADMIT: u32 = u32::MAX;

/// Codes of operations (linux/bpf_common.h; documented in the kernel's networking/filter.rst).
pub mod code {
    /// A ← 16 bits at an offset from the start of the frame.
    pub const LOAD_HALF: u16 = 0x28;
    /// A ← 32 bits at an offset from X.
    pub const LOAD_WORD_X: u16 = 0x40;
    /// A ← 16 bits at an offset from X.
    pub const LOAD_HALF_X: u16 = 0x48;
    /// A ← 8 bits at an offset from X.
    pub const LOAD_BYTE_X: u16 = 0x50;
    /// A ← scratch memory.
    pub const LOAD: u16 = 0x60;
    /// A ← a constant.
    pub const SET: u16 = 0x00;
    /// X ← a constant.
    pub const SET_X: u16 = 0x01;
    /// X ← scratch memory.
    pub const LOAD_X: u16 = 0x61;
    /// Scratch memory ← A.
    pub const STORE: u16 = 0x02;
    /// Scratch memory ← X.
    pub const STORE_X: u16 = 0x03;
    /// A ← A + a constant.
    pub const ADD: u16 = 0x04;
    /// A ← A + X.
    pub const ADD_X: u16 = 0x0c;
    /// A ← A and a constant.
    pub const AND: u16 = 0x54;
    /// A ← A shifted left.
    pub const SHIFT_LEFT: u16 = 0x64;
    /// Jump.
    pub const JUMP: u16 = 0x05;
    /// Is A equal to a constant?
    pub const EQUAL: u16 = 0x15;
    /// Is A greater than a constant?
    pub const GREATER: u16 = 0x25;
    /// Is A a constant or greater?
    pub const AT_LEAST: u16 = 0x35;
    /// Has A any of a constant's bits?
    pub const ANY_BIT: u16 = 0x45;
    /// The end: so many bytes are admitted.
    pub const RETURN: u16 = 0x06;
    /// X ← A.
    pub const A_TO_X: u16 = 0x07;
    /// A ← X.
    pub const X_TO_A: u16 = 0x87;
}

/// A place in the program that can be jumped to from before it.
#[derive(Debug, Clone, Copy)]
pub struct Label(usize);

/// A program being written.
#[derive(Debug, Default)]
pub struct Assembler {
    code: Vec<Instruction>,
    /// Where each label is, once it is marked.
    places: Vec<Option<usize>>,
    /// Jumps whose distance is still to be filled in.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    /// Adds one operation.
    pub fn op(&mut self, code: u16, operand: u32) {
        self.raw(code, operand, 0, 0);
    }

    /// Adds several.
    pub fn ops(&mut self, ops: &[(u16, u32)]) {
        for (code, operand) in ops {
            self.op(*code, *operand);
        }
    }

    /// A label for a place to come.
    pub fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// The label's place is here.
    pub fn mark(&mut self, label: Label) {
        let here = self.code.len();
        if let Some(place) = self.places.get_mut(label.0) {
            *place = Some(here);
        }
    }

    /// Goes on at a label.
    pub fn jump(&mut self, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.op(code::JUMP, 0);
    }

    /// Goes on at a label if the test holds.
    pub fn jump_if(&mut self, test: u16, operand: u32, label: Label) {
        self.raw(test, operand, 0, 1);
        self.jump(label);
    }

    /// Goes on at a label unless the test holds.
    pub fn jump_unless(&mut self, test: u16, operand: u32, label: Label) {
        self.raw(test, operand, 1, 0);
        self.jump(label);
    }

    /// Goes on at a label if all these 32-bit words at offsets from X are so; four at most, to be near enough.
    pub fn jump_if_words(&mut self, words: &[(u32, u32)], label: Label) {
        debug_assert!(words.len() <= 4, "a short jump leads over all words");
        for (left, (at, word)) in (0..words.len() as u8).rev().zip(words) {
            self.op(code::LOAD_WORD_X, *at);
            // over the words that are left, and the jump
            self.raw(code::EQUAL, *word, 0, 2 * left + 1);
        }
        self.jump(label);
    }

    /// Admits the packet.
    pub fn admit(&mut self) {
        self.op(code::RETURN, ADMIT);
    }

    /// Admits the packet if A is in a range, both ends included.
    pub fn admit_if_within(&mut self, first: u32, last: u32) {
        if first == last {
            self.raw(code::EQUAL, first, 0, 1);
        } else {
            self.raw(code::AT_LEAST, first, 0, 2);
            self.raw(code::GREATER, last, 1, 0);
        }
        self.admit();
    }

    /// Refuses the packet.
    pub fn refuse(&mut self) {
        self.op(code::RETURN, 0);
    }

    /// The program; `None` if it is longer than the kernel takes.
    pub fn finish(mut self) -> Option<Vec<Instruction>> {
        for (at, label) in self.jumps {
            let target = self.places.get(label.0).copied().flatten();
            let distance = target.and_then(|target| target.checked_sub(at + 1));
            debug_assert!(distance.is_some(), "a jump leads backward or nowhere");
            self.code.get_mut(at)?.operand = u32::try_from(distance?).ok()?;
        }
        (self.code.len() <= MAX_INSTRUCTIONS).then_some(self.code)
    }

    fn raw(&mut self, code: u16, operand: u32, jump_true: u8, jump_false: u8) {
        self.code.push(Instruction {
            code,
            jump_true,
            jump_false,
            operand,
        });
    }
}
