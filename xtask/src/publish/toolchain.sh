# What the firmware is compiled and linked with.
set -eu
rustc -vV
cc --version | head -n 1
printf 'libc.a '
sha256sum <"$(cc -print-file-name=libc.a)" | cut -d ' ' -f 1
