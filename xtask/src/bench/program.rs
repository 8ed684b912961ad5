//! x86-64 programs of system calls alone, one after the other, as `/init` of an initramfs: nothing is less work for a machine.

use nix::libc;

/// Where the program is loaded.
const ADDRESS: u64 = 0x40_0000;
/// Sizes of an ELF64 header and a program header.
const HEADERS: usize = 64 + 56;
/// `mov` of a 64-bit value to the registers of a system call: rax for its number, then rdi, rsi, rdx, r10, r8 for its arguments.
const MOVES: [[u8; 2]; 6] =
    [[0x48, 0xb8], [0x48, 0xbf], [0x48, 0xbe], [0x48, 0xba], [0x49, 0xba], [0x49, 0xb8]];
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// Goes on unless the result is an error (test rax, rax; jns over [`FAIL`] with its operands).
const CHECK: [u8; 5] = [0x48, 0x85, 0xc0, 0x79, 12];
/// `mov` to edi (the status) and to eax (the call's number); each takes 32 bits.
const FAIL: [u8; 2] = [0xbf, 0xb8];
/// exit(2); fits 32 bits.
const EXIT: i32 = libc::SYS_exit as i32;

/// An argument of a system call.
#[derive(Debug, Clone)]
pub(super) enum Argument {
    /// A number, as it lies in memory.
    Value([u8; 8]),
    /// The address of these bytes.
    Bytes(Vec<u8>),
}

impl From<i32> for Argument {
    fn from(value: i32) -> Self {
        Self::Value(i64::from(value).to_le_bytes())
    }
}

impl From<i64> for Argument {
    fn from(value: i64) -> Self {
        Self::Value(value.to_le_bytes())
    }
}

impl From<u64> for Argument {
    fn from(value: u64) -> Self {
        Self::Value(value.to_le_bytes())
    }
}

impl From<&str> for Argument {
    /// As C has it.
    fn from(text: &str) -> Self {
        Self::Bytes([text.as_bytes(), b"\0"].concat())
    }
}

/// A list of system calls.
#[derive(Debug, Default)]
pub(super) struct Program {
    /// What the code refers to; it lies before it.
    data: Vec<u8>,
    code: Vec<u8>,
    calls: u8,
}

impl Program {
    /// Adds a call by its number, of at most five arguments. Where one fails, the program ends with how many calls came
    /// before it; of a process 1 the kernel's panic has that as the second octet from the right of `exitcode`.
    pub(super) fn call<const N: usize>(&mut self, number: i64, arguments: [Argument; N]) {
        const { assert!(N < MOVES.len()) };
        for (opcode, argument) in MOVES.iter().zip([number.into()].into_iter().chain(arguments)) {
            let value = match argument {
                Argument::Value(value) => value,
                Argument::Bytes(bytes) => {
                    let place = self.end_of_data().to_le_bytes();
                    self.data.extend(bytes);
                    place
                }
            };
            self.code.extend(opcode);
            self.code.extend(value);
        }
        self.code.extend([&SYSCALL[..], &CHECK].concat());
        self.exit(self.calls.into());
        self.calls += 1;
    }

    fn exit(&mut self, status: i32) {
        for (opcode, value) in FAIL.into_iter().zip([status, EXIT]) {
            self.code.push(opcode);
            self.code.extend(value.to_le_bytes());
        }
        self.code.extend(SYSCALL);
    }

    fn end_of_data(&self) -> u64 {
        ADDRESS + (HEADERS + self.data.len()) as u64
    }

    /// A static ELF64 executable of one segment.
    pub(super) fn elf(&self) -> Vec<u8> {
        let size = (HEADERS + self.data.len() + self.code.len()) as u64;
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(16, 0);
        let half = |elf: &mut Vec<u8>, values: &[u16]| {
            elf.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        };
        let long = |elf: &mut Vec<u8>, values: &[u64]| {
            elf.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        };
        half(&mut elf, &[2, 62]); // executable, x86-64
        elf.extend(1_u32.to_le_bytes());
        long(&mut elf, &[self.end_of_data(), 64, 0]); // entry, program headers, no sections
        elf.extend(0_u32.to_le_bytes());
        half(&mut elf, &[64, 56, 1, 0, 0, 0]);
        elf.extend(1_u32.to_le_bytes()); // PT_LOAD
        elf.extend(5_u32.to_le_bytes()); // readable and executable
        long(&mut elf, &[0, ADDRESS, ADDRESS, size, size, 0x1000]);
        elf.extend([&self.data[..], &self.code].concat());
        elf
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_where_the_code_says() {
        let mut program = Program::default();
        program.call(83, ["/a".into(), 0o700.into()]);
        program.call(3, []);
        let elf = program.elf();
        let number = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().unwrap());
        assert_eq!(number(24), ADDRESS + (HEADERS + 3) as u64, "the entry");
        assert_eq!(number(64 + 32), elf.len() as u64, "the segment's size");
        let text = usize::try_from(number(HEADERS + 3 + 12) - ADDRESS).unwrap();
        assert_eq!(elf[text..text + 3], *b"/a\0");
        let mut code = vec![0x48, 0xb8, 83, 0, 0, 0, 0, 0, 0, 0]; // mov rax, 83 (mkdir)
        code.extend([0x48, 0xbf]); // mov rdi, the text
        code.extend((ADDRESS + HEADERS as u64).to_le_bytes());
        code.extend([0x48, 0xbe, 0xc0, 1, 0, 0, 0, 0, 0, 0]); // mov rsi, 0o700
        code.extend([0x0f, 0x05]); // syscall
        code.extend([0x48, 0x85, 0xc0, 0x79, 12]); // test rax, rax; jns over the next
        code.extend([0xbf, 0, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]); // exit(0)
        code.extend([0x48, 0xb8, 3, 0, 0, 0, 0, 0, 0, 0]); // mov rax, 3 (close)
        code.extend([0x0f, 0x05, 0x48, 0x85, 0xc0, 0x79, 12]);
        code.extend([0xbf, 1, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]); // exit(1)
        assert_eq!(elf[HEADERS + 3..], code);
    }
}
