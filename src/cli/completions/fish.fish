# fish completion for sif-convert; the program itself knows the candidates.
function __sif_convert_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l current (commandline -ct)
    for line in ($words[1] __complete -- $words[2..-1] 2>/dev/null)
        if string match -q ':files*' -- $line
            __fish_complete_path $current
        else
            echo $line
        end
    end
end
complete -c sif-convert -f -a '(__sif_convert_complete)'
