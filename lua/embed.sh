#!/bin/sh
# Writes the files that its arguments name as a C table (lua/engine/embedded.h): scripts and the dashboard travel in the binary.
set -eu
echo '#include "lua/engine/embedded.h"'
echo '#include <stddef.h>'
count=0
for file in "$@"; do
    printf 'static const unsigned char file_%d[] = {\n' "$count"
    od -An -v -tx1 "$file" | sed 's/ *\([0-9a-f][0-9a-f]\)/0x\1,/g'
    printf '0};\n'
    count=$((count + 1))
done
echo 'const struct embedded_file embedded_files[] = {'
count=0
for file in "$@"; do
    printf '    {"%s", (const char *)file_%d, sizeof file_%d - 1},\n' "$(basename "$file")" "$count" "$count"
    count=$((count + 1))
done
echo '    {NULL, NULL, 0},'
echo '};'
