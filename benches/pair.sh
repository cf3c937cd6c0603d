# Sourced by the benches: commands measured in turn, so that a machine that gets slower or busier meanwhile slows both.
# ROUNDS rounds of RUNS runs each (defaults 9 and 6); `work` is the caller's scratch directory.
RUNS=${RUNS:-6}
ROUNDS=${ROUNDS:-9}

# hyperfine is told to ignore exit codes (one broken run would end the bench): so first see that a command works.
must_work() {
    local words
    for words in "$@"; do
        $words >/dev/null 2>"$work/err" || { echo "does not work: $words" >&2; cat "$work/err" >&2; exit 1; }
    done
}

# Name, goal, command, peer's command: the medians of all runs in milliseconds, and the median of the rounds' ratios.
pair() {
    : > "$work/rounds"
    for _ in $(seq "$ROUNDS"); do
        hyperfine -N -w 1 -r "$RUNS" --export-json "$work/out.json" -i "$3" "$4" >/dev/null 2>"$work/err" || { cat "$work/err"; return 1; }
        jq -c '[.results[].times]' "$work/out.json" >> "$work/rounds"
    done
    jq -rs --arg name "$1" --arg goal "$2" '
        def median: sort | if length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end;
        def hundredth: . * 100 | round / 100;
        [([.[][0][]] | median * 1000 | hundredth), ([.[][1][]] | median * 1000 | hundredth),
         ([.[] | (.[0] | median) / (.[1] | median)] | median * 1000 | round / 1000)]
        | "\($name)\t\(.[0])\t\(.[1])\t\(.[2])\t\($goal)"' "$work/rounds"
}
