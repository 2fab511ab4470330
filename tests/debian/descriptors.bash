# Here documents, process substitution, and descriptors by number.
#= expanded 42 in a command
#= not $expanded
#= without tabs
#= 168894
#= 14
#= 1-4
#= 2-5
#= 3-6
#= caught err
#= here
#= by descriptor
#= a program on standard input
#= 2 b
#= limit
cat <<END; cat <<'END'; cat <<-END
expanded $((6 * 7)) $(echo in a command)
END
not $expanded
END
	without tabs
	END
cat <<END | wc -c
$(seq 1 30000)
END
wc -c < <(cat <(echo one) <(echo two) <(cat <(cat <(echo three))))
diff <(seq 10) <(seq 2 11) || true
tee >(md5sum > sum) >(wc -l > lines) < /etc/passwd > /dev/null
until [ -s sum ] && [ -s lines ]; do sleep 0.01; done
cat sum lines
exec 8<> both
echo written >&8
exec 9< both
cat <&9
exec 8>&- 9<&-
{ echo x >&8; } 2>/dev/null || echo closed
while read -r -u 3 a; do
    read -r -u 4 b
    echo "$a-$b"
done 3< <(seq 3) 4< <(seq 4 6)
{ echo out; echo err >&2; } 2>&1 >/dev/null | sed 's/^/caught /'
cat /dev/stdin <<< here
cat /dev/fd/0 <<< 'by descriptor'
python3 /dev/stdin <<< 'print("a program on standard input")'
bash -s a b <<< 'echo $# $2'
for n in {1..200}; do exec {fd}< /etc/passwd; done
echo the last of 200: $((fd > 200))
(ulimit -n 32; (exec 40< /etc/passwd) 2>/dev/null || echo limit; /bin/echo started)
printf '%s\n' *
shopt -s nullglob extglob
echo /usr/include/linux/@(a|b)*.h | wc -w
