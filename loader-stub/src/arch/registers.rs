//! The registers of a trapped call where calls are made outside by `outside` and return by a trap: aarch64 and riscv64, on
//! which no register is free for a jump.

use super::this::{ARGS, Context, NUMBER, OUTSIDE_BYTES, PC, SP, outside_address};

/// The most that is used below the stack pointer.
pub const RED_ZONE_BYTES: usize = 0;

/// What is restored when a call that was made outside returns.
#[repr(C)]
pub struct WayBack {
    args: [usize; 6],
    number: u64,
    sp: u64,
    pc: u64,
}

impl Context {
    /// The trapped call's number.
    pub fn number(&self) -> usize {
        self.regs[NUMBER] as u32 as usize
    }

    /// The trapped call's arguments.
    pub fn args(&self) -> [usize; 6] {
        [0, 1, 2, 3, 4, 5].map(|at| self.regs[ARGS + at] as usize)
    }

    /// What the call shall seem to have answered.
    pub fn set_answer(&mut self, answer: usize) {
        self.regs[ARGS] = answer as u64;
    }

    /// The stack pointer of the interrupted code.
    pub fn sp(&self) -> usize {
        self.regs[SP] as usize
    }

    /// The alternate stack that there was: where it starts, and its size in bytes.
    pub fn alternate_stack(&self) -> (usize, usize) {
        (self.head[2] as usize, self.head[4] as usize)
    }

    /// How the trapped call ends.
    pub fn way_back(&self) -> WayBack {
        WayBack {
            args: self.args(),
            number: self.regs[NUMBER],
            sp: self.regs[SP],
            pc: self.regs[PC],
        }
    }

    /// Has sigreturn go to where the trapped call is made, with one argument replaced, and whence it returns by the
    /// [`WayBack`] at `sp`.
    pub fn call_outside(&mut self, arg: usize, value: usize, sp: usize) {
        self.regs[ARGS + arg] = value as u64;
        self.regs[SP] = sp as u64;
        self.regs[PC] = outside_address() as u64;
    }

    /// Is this the trap by which `outside` returns? Has sigreturn return from there then.
    pub fn returns_from_outside(&mut self) -> bool {
        if self.regs[PC].wrapping_sub(outside_address() as u64) > OUTSIDE_BYTES {
            return false;
        }
        // SAFETY: waits.rs put it there.
        let way_back = unsafe { (self.regs[SP] as *const WayBack).read() };
        for at in 1..6 {
            self.regs[ARGS + at] = way_back.args[at] as u64;
        }
        self.regs[NUMBER] = way_back.number;
        self.regs[SP] = way_back.sp;
        self.regs[PC] = way_back.pc;
        true
    }
}
