//! Programs of system calls alone, one after the other, as `/init` of an initramfs: nothing is less work for a machine.

/// Where the program is loaded.
const ADDRESS: u64 = 0x40_0000;
/// Sizes of an ELF64 header and a program header.
const HEADERS: usize = 64 + 56;
/// `mov` of a 64-bit value to each register of a system call's arguments, in their order: rdi, rsi, rdx, r10, r8.
const MOVES: [[u8; 2]; 5] = [[0x48, 0xbf], [0x48, 0xbe], [0x48, 0xba], [0x49, 0xba], [0x49, 0xb8]];

/// An argument of a system call.
#[derive(Debug, Clone)]
pub(super) enum Argument {
    /// A number.
    Value(u64),
    /// The address of these bytes.
    Bytes(Vec<u8>),
}

impl From<u64> for Argument {
    fn from(value: u64) -> Self {
        Self::Value(value)
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
    calls: Vec<(u32, Vec<Argument>)>,
}

impl Program {
    /// Adds a call by its number (`asm/unistd_64.h`), of at most five arguments. Where one fails the program goes no further.
    pub(super) fn call<const N: usize>(&mut self, number: u32, arguments: [Argument; N]) {
        const { assert!(N <= MOVES.len()) };
        self.calls.push((number, arguments.into()));
    }

    /// A static ELF64 executable of one segment.
    pub(super) fn elf(&self) -> Vec<u8> {
        // The first pass is for the length of the code, which no argument's value changes.
        let length = self.code(0).0.len();
        let (code, data) = self.code(ADDRESS + (HEADERS + length) as u64);
        let size = (HEADERS + code.len() + data.len()) as u64;
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
        long(&mut elf, &[ADDRESS + HEADERS as u64, 64, 0]); // entry, program headers, no sections
        elf.extend(0_u32.to_le_bytes());
        half(&mut elf, &[64, 56, 1, 0, 0, 0]);
        elf.extend(1_u32.to_le_bytes()); // PT_LOAD
        elf.extend(5_u32.to_le_bytes()); // readable and executable
        long(&mut elf, &[0, ADDRESS, ADDRESS, size, size, 0x1000]);
        elf.extend(code);
        elf.extend(data);
        elf
    }

    /// Code, and what it refers to, which will be at this address.
    fn code(&self, address: u64) -> (Vec<u8>, Vec<u8>) {
        let (mut code, mut data) = (Vec::new(), Vec::new());
        for (number, arguments) in &self.calls {
            for (opcode, argument) in MOVES.iter().zip(arguments) {
                let value = match argument {
                    Argument::Value(value) => *value,
                    Argument::Bytes(bytes) => {
                        let place = address + data.len() as u64;
                        data.extend(bytes);
                        place
                    }
                };
                code.extend(opcode);
                code.extend(value.to_le_bytes());
            }
            code.push(0xb8); // mov eax, number
            code.extend(number.to_le_bytes());
            code.extend([0x0f, 0x05]); // syscall
            code.extend([0x48, 0x85, 0xc0]); // test rax, rax
            code.extend([0x79, 0x02]); // jns: over the next
            code.extend([0xeb, 0xfe]); // jmp to itself
        }
        code.extend([0xeb, 0xfe]);
        (code, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_where_the_code_says() {
        let mut program = Program::default();
        program.call(83, ["/a".into(), 0o700.into()]);
        let elf = program.elf();
        let number = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().unwrap());
        assert_eq!(number(24), ADDRESS + HEADERS as u64, "the entry");
        assert_eq!(number(64 + 32), elf.len() as u64, "the segment's size");
        assert_eq!(elf[HEADERS..HEADERS + 2], MOVES[0]);
        let text = usize::try_from(number(HEADERS + 2) - ADDRESS).unwrap();
        assert_eq!(elf[text..], *b"/a\0");
        assert_eq!(number(HEADERS + 12), 0o700);
    }
}
