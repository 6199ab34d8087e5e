"""The project of the random walk, and the few values that the walk chooses from."""

#: A folder as input and as output, a reader of one file of it, foreach, nested parameters, a stage whose output ignores
#: most of its input, a folder above outputs of several stages, outputs that nothing needs, a stage that always runs.
DVC_YAML = """\
stages:
  gather:
    cmd: sh code/gather.sh data/raw out/parts @LIMIT@
    deps: [data/raw, code/gather.sh]
    params: [gather.limit]
    outs: [out/parts, out/log.txt]
    metrics: [metrics/gather.json: {cache: false}]
  head:
    cmd: head -n 1 out/parts/a.txt > out/head.txt
    frozen: @FROZEN@
    deps: [out/parts/a.txt]
    outs: [out/head.txt]
  mark:
    foreach: ${marks}
    do:
      cmd: sh code/mark.sh ${key} out/parts > out/mark/${key}.txt
      deps: [out/parts, code/mark.sh]
      params: ["marks.${key}", other.yaml: [deep.x]]
      outs: ["out/mark/${key}.txt"]
  blind:
    cmd: @BLIND@ wc -l < out/head.txt > out/blind.txt
    deps: [out/head.txt]
    params: [blind]
    outs: [out/blind.txt]
  join:
    wdir: out
    cmd: cat mark/x.txt mark/y.txt blind.txt > join.txt
    deps: [mark, blind.txt]
    outs: [join.txt: {persist: true}]
  stamp:
    cmd: cat out/blind.txt > out/stamp.txt
    always_changed: true
    deps: [out/blind.txt]
    outs: [out/stamp.txt]
"""
GATHER = """\
set -e
mkdir -p "$2" metrics
for file in "$1"/*; do head -n "$3" "$file" > "$2/$(basename "$file")"; done
ls "$1" > out/log.txt
echo "{\\"files\\": $(ls "$1" | wc -l)}" > metrics/gather.json
"""
#: What the walk chooses from: few values each, so that edits are undone as often as made.
PARAMS = {"limit": ["1", "2"], "x": ["1", "2.0e-5"], "y": ["{deep: {er: 1}}", "null"], "blind": ["true", "[1, 2]"]}
TEXTS = ["one\n", "one\ntwo\n", "other\ntwo\nthree\n"]
RAW = ["a.txt", "b.txt", "c.txt"]
OUTPUTS = ["out/parts", "out/parts/a.txt", "out/log.txt", "metrics/gather.json", "out/head.txt", "out/mark/x.txt"]
OUTPUTS += ["out/mark/y.txt", "out/blind.txt", "out/join.txt", "out/stamp.txt"]
STAGES = ["gather", "head", "mark@x", "mark@y", "blind", "join", "stamp"]
