# Programs that are written in Go: direnv is all fork and exec, and execs from one of many threads; fzf sorts by all of them.
#= allowed 1
#= from the environment
#= denied
#= linux/limits.h
export DIRENV_LOG_FORMAT= XDG_DATA_HOME=/tmp/data XDG_CONFIG_HOME=/tmp/config
mkdir -p project/deep
cat > project/.envrc <<'END'
export WORD="from the environment" COUNT=$((6 * 7))
PATH_add bin
END
direnv exec project true 2>/dev/null || echo denied first
direnv allow project
echo allowed $(direnv exec project sh -c 'echo $((COUNT / 42))')
direnv exec project/deep sh -c 'echo $WORD; echo "$PATH" | sed "s/:.*//"'
(cd project && direnv export json | python3 -c 'import json, sys; print(sorted(name for name in json.load(sys.stdin) if name[:6] != "DIRENV"))')
for n in {1..10}; do direnv exec project printenv COUNT; done | sort | uniq -c
direnv exec project sh -c 'exit 33' || echo $?
direnv deny project
direnv exec project true 2>/dev/null || echo denied
rm -r data project

find /usr/include -name '*.h' | sort > names
fzf --filter=linux/limit < names | sort
fzf --exact --no-sort --filter='net ^/usr !asm .h$' < names | sed -n 1,20p
FZF_DEFAULT_COMMAND='sort -r names' fzf --filter=stdio --no-sort < names
seq 200000 | fzf --filter=777 | wc -l
fzf --filter=nothing-is-called-that < names || echo $?
