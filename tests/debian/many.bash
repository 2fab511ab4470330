# A thousand programs, one after the other and four at a time; a pipeline of twenty; shells in shells.
#= 1000
#= 53d025127ae99ab79e8502aae2d9bea6
#= a pipeline of twenty
#= bottom
#= 16
#= substituted
for ((n = 0; n < 1000; n++)); do
    /bin/true
done
echo $n
seq 1000 | xargs -n 1 -P 4 /bin/echo | sort -n | md5sum

seq 2000 | cat | sed -n p | awk 1 | perl -pe 1 | tac | tac | grep -h '' | tr a-z a-z | dd status=none | busybox cat |
    tee /dev/null | head -n -0 | tail -n +1 | cut -b 1- | python3 -c 'import sys; sys.stdout.writelines(sys.stdin)' |
    sort -n | uniq | gzip | gunzip | cmp - <(seq 2000)
echo a pipeline of twenty

nest() {
    if [ "$1" = 0 ]; then
        echo bottom
    else
        bash -c "$(declare -f nest); nest $(($1 - 1))"
    fi
}
nest 12
deep='echo $((8 + 8))'
for n in {1..6}; do deep="bash -c $(printf %q "$deep")"; done
eval "$deep"
echo $(echo $(echo $(echo $(echo $(/bin/echo substituted)))))
