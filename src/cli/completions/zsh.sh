#compdef sif-convert
# zsh completion for sif-convert; the program itself knows the candidates.
_sif_convert() {
    local line name
    local -a names shown open
    for line in "${(@f)$(${(Q)words[1]} __complete -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
        name=${line%%$'\t'*}
        if [[ $name == :files ]]; then
            _files
        elif [[ $name == *[:/=] ]]; then
            open+=("$name")
        elif [[ -n $name ]]; then
            names+=("$name")
            shown+=("$name  -- ${line#*$'\t'}")
        fi
    done
    (( $#names )) && compadd -l -d shown -a names
    (( $#open )) && compadd -S '' -a open
    return 0
}
if [[ $funcstack[1] == _sif-convert || $funcstack[1] == _sif_convert ]]; then
    _sif_convert "$@"
else
    compdef _sif_convert sif-convert
fi
