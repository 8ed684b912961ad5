# Compiles Python modules: from standard input, for each, the path and the source, to standard output the bytecode, or nothing
# when the source is none. Each is a length of four octets, the greatest first, and so many octets.
import importlib.util
import marshal
import sys

read, write = sys.stdin.buffer.read, sys.stdout.buffer.write


def field():
    return read(int.from_bytes(read(4), "big"))


while path := field().decode():
    source = field()
    try:
        code = compile(source, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        write(bytes(4))
        continue
    # PEP 552: by the hash of the source, which is never compared.
    head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(source)
    compiled = head + marshal.dumps(code)
    write(len(compiled).to_bytes(4, "big") + compiled)
