#!/bin/sh
# Builds the release again in the new folder $1, from this archive alone and without a network, and compares the bytes.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
archive=$(CDPATH='' cd -- "$here/../.." && pwd)
[ $# -eq 1 ] || { echo "usage: sh $0 NEW-FOLDER" >&2; exit 2; }
mkdir "$1"
work=$(CDPATH='' cd -- "$1" && pwd)

sh "$here/toolchain.sh" >"$work/toolchain.txt"
if ! diff "$here/toolchain.txt" "$work/toolchain.txt" >&2; then
    echo "warning: the toolchain (>) is not that of the release (<): the bytes may differ" >&2
fi
git -c init.defaultBranch=main clone --quiet --no-checkout "$here/source.bundle" "$work/kontor"
cd "$work/kontor"
git checkout --quiet --detach "@COMMIT@"
cp -R "$archive/cargo" "$work/cargo"
unset CARGO_TARGET_DIR
export CARGO_HOME="$work/cargo" CARGO_NET_OFFLINE=true KONTOR_CACHE="$work/packages"
cargo xtask release @ARGUMENTS@ --changelog "$here/changelog.md" --keys "$here" \
    --offline --locked --quiet --archive "$archive" --output "$work/release"
for manifest in "$here"/*.json; do
    name=${manifest##*/}
    [ "$name" = root.json ] && continue
    # It names every object by its hash.
    cmp "$manifest" "$work/release/$name"
    echo "$name and its objects: the same bytes"
done
