# bash completion for sif-convert; the program itself knows the candidates.
_sif_convert() {
    local line=${COMP_LINE:0:COMP_POINT} candidate current
    local -a words
    IFS=$' \t\n' read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[-1]}
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        if [[ $candidate == :files ]]; then
            compopt -o filenames
            while IFS= read -r candidate; do COMPREPLY+=("$candidate"); done < <(compgen -f -- "$current")
        else
            [[ $candidate == *[:/=] ]] && compopt -o nospace
            # bash completes what is behind the last of these; what is before stands already.
            if [[ $current == *[:=]* ]]; then candidate=${candidate#"${current%"${current##*[:=]}"}"}; fi
            COMPREPLY+=("$candidate")
        fi
    done < <("${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null)
}
complete -F _sif_convert sif-convert
