"""The completion scripts of three shells.

bash and zsh share the functions that know the commands; each has its own way to offer words. Names come from
`kc __complete`, line by line, and are never evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote

from kc_tui.cli.completion import Line, Value

_BASH = r"""
_kc_names() {
    local name
    while IFS= read -r name; do
        [[ $name == "$1"* ]] && COMPREPLY+=("$2$name")
        [[ $name == *= ]] && compopt -o nospace 2>/dev/null
    done < <(command kc __complete "$3" "${given[@]}" 2>/dev/null)
}

_kc_offer() { # KIND WORDS BEGINNING PREFIX
    local word
    case $1 in
        names) _kc_names "$3" "$4" "$2" ;;
        files) compopt -o filenames 2>/dev/null
            while IFS= read -r word; do COMPREPLY+=("$4$word"); done < <(compgen -f -- "$3") ;;
        words) for word in $2; do [[ $word == "$3"* ]] && COMPREPLY+=("$4$word"); done ;;
    esac
}

_kc() {
    local IFS=$' \t\n' line=${COMP_LINE:0:COMP_POINT} path='' valued='' cur word kind='' list='' i breaks
    local -a words given
    COMPREPLY=()
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=('')
    cur=${words[${#words[@]} - 1]}
    for ((i = 1; i < ${#words[@]} - 1; i++)); do
        word=${words[i]}
        if [[ $valued ]]; then valued=''
        elif [[ $word == -* ]]; then _kc_takes_value "$word" && valued=$word
        elif _kc_words "$path"; then path="${path:+$path }$word"
        else given+=("$word"); fi
    done
    if [[ $valued ]]; then
        _kc_value "$path" "$valued"
        _kc_offer "$kind" "$list" "$cur" ''
    elif [[ $cur == --*=* ]]; then
        _kc_value "$path" "${cur%%=*}"
        _kc_offer "$kind" "$list" "${cur#*=}" "${cur%%=*}="
    elif [[ $cur == -* ]]; then
        _kc_options "$path"
        _kc_offer words "$list" "$cur" ''
    elif _kc_words "$path"; then
        _kc_offer words "$list" "$cur" ''
    else
        _kc_argument "$path" "${#given[@]}"
        _kc_offer "$kind" "$list" "$cur" ''
    fi
    # bash puts in only what stands after the last = or : of the word.
    if [[ $cur == *[=:]* ]]; then
        breaks=${cur%"${cur##*[=:]}"}
        for ((i = 0; i < ${#COMPREPLY[@]}; i++)); do COMPREPLY[i]=${COMPREPLY[i]#"$breaks"}; done
    fi
}

complete -F _kc kc
"""

_ZSH = r"""
_kc_offer() { # KIND WORDS
    case $1 in
        names) names=(${(f)"$(command kc __complete $2 "${given[@]}" 2>/dev/null)"})
            compadd -S '' -- ${(M)names:#*=}
            compadd -- ${names:#*=} ;;
        files) _files ;;
        words) compadd -- ${=2} ;;
    esac
}

_kc() {
    local cur=${words[CURRENT]} path_='' valued='' word kind='' list='' i
    local -a given names
    for ((i = 2; i < CURRENT; i++)); do
        word=${words[i]}
        if [[ -n $valued ]]; then valued=''
        elif [[ $word == -* ]]; then _kc_takes_value "$word" && valued=$word
        elif _kc_words "$path_"; then path_="${path_:+$path_ }$word"
        else given+=("$word"); fi
    done
    if [[ -n $valued ]]; then
        _kc_value "$path_" "$valued"
        _kc_offer "$kind" "$list"
    elif [[ $cur == --*=* ]]; then
        compset -P '*='
        _kc_value "$path_" "${cur%%=*}"
        _kc_offer "$kind" "$list"
    elif [[ $cur == -* ]]; then
        _kc_options "$path_"
        _kc_offer words "$list"
    elif _kc_words "$path_"; then
        _kc_offer words "$list"
    else
        _kc_argument "$path_" "${#given}"
        _kc_offer "$kind" "$list"
    fi
}

if [[ ${funcstack[1]} == _kc ]]; then _kc "$@"; else compdef _kc kc; fi
"""

_FISH = r"""
# The words of the command that is typed, then those that are given to it, a line each.
function __kc_read
    set -l path
    set -l given
    set -l valued 0
    for word in (commandline -opc)[2..-1]
        if test $valued -eq 1
            set valued 0
        else if contains -- $word $__kc_valued
            set valued 1
        else if string match -q -- '-*' $word
            continue
        else if contains -- "$path" $__kc_nouns
            set path (string trim -- "$path $word")
        else
            set given $given $word
        end
    end
    printf '%s\n' "$path" $given
end

# __kc_at PATH [FIRST [LAST]]: that command, with so many words given.
function __kc_at
    set -l typed (__kc_read)
    test "$typed[1]" = "$argv[1]"; or return 1
    set -l count (math (count $typed) - 1)
    test (count $argv) -lt 2; or test $count -ge $argv[2]; or return 1
    test (count $argv) -lt 3; or test $count -le $argv[3]
end

function __kc_names
    set -l typed (__kc_read)
    command kc __complete $argv[1] $typed[2..-1] 2>/dev/null
end

complete -c kc -f
"""


def _case(cases: Sequence[tuple[str, str]], otherwise: str) -> str:
    lines = [f"        {pattern}) {body} ;;" for pattern, body in cases]
    return "\n".join(["    case $1 in", *lines, f"        *) {otherwise} ;;", "    esac"])


def _assign(value: Value | None) -> str:
    if value is None or value.kind == "free":
        return "kind=free list=''"
    return f"kind={value.kind} list={quote(' '.join(value.words))}"


def _valued_flags(lines: Sequence[Line]) -> list[str]:
    flags = {flag for line in lines for option in line.options if option.value is not None for flag in option.flags}
    return sorted(flags)


def _write_functions(lines: Sequence[Line]) -> str:
    """Return the functions that know the commands; each sets `list` or `kind` of its caller, and fails for nothing."""
    words = [
        (quote(line.path), f"list={quote(' '.join(word for word, _help in line.words))}")
        for line in lines
        if line.words
    ]
    options = [
        (quote(line.path), f"list={quote(' '.join(flag for option in line.options for flag in option.flags))}")
        for line in lines
    ]
    values = [
        (" | ".join(quote(f"{line.path}:{flag}") for flag in option.flags), _assign(option.value))
        for line in lines
        for option in line.options
        if option.value is not None
    ]
    arguments = [
        (f"{quote(f'{line.path}:')}{'*' if value.repeats else index}", _assign(value))
        for line in lines
        for index, value in enumerate(line.arguments)
    ]
    return "\n".join(
        [
            "_kc_takes_value() {",
            _case([(" | ".join(_valued_flags(lines)), "return 0")], "return 1"),
            "}\n\n_kc_words() {",
            _case(words, "return 1"),
            "}\n\n_kc_options() {",
            _case(options, "list=''"),
            "}\n\n_kc_value() {",
            '    set -- "$1:$2"',
            _case(values, "kind=free list=''"),
            "}\n\n_kc_argument() {",
            '    set -- "$1:$2"',
            _case(arguments, "kind=free list=''"),
            "}",
        ]
    )


def write_bash(lines: Sequence[Line]) -> str:
    """Return the script for bash."""
    return f"# kc completion for bash\n{_write_functions(lines)}\n{_BASH}"


def write_zsh(lines: Sequence[Line]) -> str:
    """Return the script for zsh."""
    return f"#compdef kc\n{_write_functions(lines)}\n{_ZSH}"


def _quote_fish(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _fish_value(value: Value) -> str:
    if value.kind == "names":
        return f"-x -a {_quote_fish(f'(__kc_names {value.words[0]})')}"
    if value.kind == "words":
        return f"-x -a {_quote_fish(' '.join(value.words))}"
    return "-r -F" if value.kind == "files" else "-x"


def write_fish(lines: Sequence[Line]) -> str:
    """Return the script for fish."""
    nouns = " ".join(_quote_fish(line.path) for line in lines if line.words)
    script = [
        "# kc completion for fish",
        f"set -g __kc_valued {' '.join(_valued_flags(lines))}",
        f"set -g __kc_nouns {nouns}",
        _FISH,
    ]
    for line in lines:
        here = f"complete -c kc -n {_quote_fish(f'__kc_at {_quote_fish(line.path)}')}"
        script += [f"{here} -a {_quote_fish(word)} -d {_quote_fish(text)}" for word, text in line.words]
        for index, argument in enumerate(line.arguments):
            if argument.kind != "free":
                count = f"{index}" if argument.repeats else f"{index} {index}"
                place = _quote_fish(f"__kc_at {_quote_fish(line.path)} {count}")
                offered = _fish_value(argument).removeprefix("-x ").removeprefix("-r ")
                script.append(f"complete -c kc -n {place} {offered}")
        for option in line.options:
            flags = " ".join(
                f"-l {flag.removeprefix('--')}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags
            )
            value = f" {_fish_value(option.value)}" if option.value is not None else ""
            script.append(f"{here} {flags}{value} -d {_quote_fish(option.help)}")
    return "\n".join(script) + "\n"
